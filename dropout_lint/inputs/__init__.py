"""Example inputs of a model: what was given, what the model declares, what code and first layer take."""
