"""What the layers of a model are: which module or function is a dropout, a norm, a weight layer."""

from dropout_lint.layers.catalogue import STANDARD, Catalogue, ExtraDropout
from dropout_lint.layers.dropouts import DropoutSpec, is_dropout_function
from dropout_lint.layers.norms import NormSpec
from dropout_lint.layers.weights import WEIGHT_FUNCTIONS, is_weight_layer
from dropout_lint.terms import Noise

__all__ = [
    "STANDARD",
    "WEIGHT_FUNCTIONS",
    "Catalogue",
    "DropoutSpec",
    "ExtraDropout",
    "Noise",
    "NormSpec",
    "is_dropout_function",
    "is_weight_layer",
]
