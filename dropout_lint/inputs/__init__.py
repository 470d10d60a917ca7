"""Example inputs of a model: what was given, what the model declares, what its first layer takes."""
