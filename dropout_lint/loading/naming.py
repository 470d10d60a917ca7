"""What names say: whether a function that is called so builds a model.

Only asked where neither an annotation nor the source tells, so that no function is called just to see.
"""

from __future__ import annotations

import re
import sys

WITHOUT_MODELS = frozenset({"numpy", "pandas", "scipy", "sklearn", "PIL", "cv2", *sys.stdlib_module_names})
"""Packages whose functions and classes build no models of torch's."""
_WORDS = re.compile(r"[A-Z]+(?![a-z])|[A-Z]?[a-z]+|[0-9]+")
_VERBS = {"build", "builder", "make", "create", "construct", "instantiate", "assemble", "new", "factory"}
_MODEL = re.compile(
    r".*net|model|network|backbone|encoder|decoder|classifier|regressor|generator|discriminator|critic"
    r"|.*former|c?nn|mlp|rnn|lstm|gru|gan|vae|vit|bert|gpt|llm|resnext|vgg|inception"
)
_TAIL = {"from", "for", "with", "by", "of", "and", "in", "on", "using", "without"}
_ADJECTIVES = {
    "small", "tiny", "base", "large", "big", "huge", "mini", "nano", "xl", "xs", "s", "m", "l", "b", "v",
    "default", "baseline", "simple", "pretrained", "example", "fixed", "it",
}  # fmt: skip
_FROM_FILES = {"from_pretrained", "from_config", "load_from_checkpoint"}
_NO_MODELS = ("Tokenizer", "Processor", "Config", "Extractor", "Pipeline", "DataModule")
_HOMES = {"models", "model", "timm", "transformers", "networks", "nets", "backbones", "architectures", "zoo"}


def suggests_model(name: str) -> bool:
    """Whether a function of this name builds a model: `build`, `make_small`, `get_model`, `unet_from_config`.

    `build_index`, `get_model_names` and `make_optimizer` do not.
    """
    words = [word.lower() for word in _WORDS.findall(name)]
    cut = next((index for index, word in enumerate(words) if index and word in _TAIL), len(words))
    words = words[:cut]
    while len(words) > 1 and (words[-1].isdigit() or words[-1] in _ADJECTIVES):
        words.pop()
    if not words:
        return False
    return _MODEL.fullmatch(words[-1]) is not None or all(word in _VERBS for word in words)


def calls_builder(dotted: str) -> bool:
    """Whether what is called under a dotted name is a builder of models, by that name and where it is from.

    `timm.create_model`, `torchvision.models.resnet18` and `AutoModel.from_pretrained` are.
    """
    parts = dotted.split(".")
    owner, last = parts[:-1], parts[-1]
    if last in _FROM_FILES:
        return not any(part.endswith(_NO_MODELS) for part in owner)
    if suggests_model(last):
        return True
    return bool(_HOMES.intersection(owner)) and not last.endswith(_NO_MODELS)
