import tomllib
from importlib import import_module
from pathlib import Path


def build(path="conf/small.toml"):
    options = tomllib.loads(Path(path).read_text())
    module, _, name = options.pop("_target_").rpartition(".")
    return getattr(import_module(module), name)(**options)
