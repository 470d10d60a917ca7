"""Models that a Hydra configuration describes: `conf/model.yaml`, `conf/config.yaml:model.net`.

What stands under `_target_` is called as `hydra.utils.instantiate` calls it, with the file's own arguments; a
file with a `defaults` list is composed first, as an application that names it would be.
"""

from __future__ import annotations

import functools
import importlib
import warnings
from collections.abc import Iterator, Sequence
from pathlib import Path
from types import ModuleType
from typing import Any

from dropout_lint.errors import TargetError
from dropout_lint.loading.build import Made, make
from dropout_lint.loading.importing import importable_project, shown
from dropout_lint.loading.parse import CONFIGURATIONS, Call, Spec
from dropout_lint.loading.usercode import user_code

_TARGET = "_target_"
_SHOWN = 6


def is_configuration(spec: Spec) -> bool:
    """Whether a target is such a file."""
    return spec.path is not None and spec.path.suffix in CONFIGURATIONS


def instantiated(spec: Spec, ways: Sequence[str]) -> Made:
    """The model that the file describes, at the key behind the colon where there is one.

    Raises:
        TargetError: hydra-core is not installed, the file cannot be read, there is no such key, or what it
            describes is no model, or cannot be built.
    """
    assert spec.path is not None
    importable_project()
    call = spec.call or Call(())
    if call.args:
        raise TargetError(f"`{spec.text}` gives arguments without names", "write name=value")
    config = _read(spec.path)
    node = _at(config, call.path, spec)
    instantiate = importlib.import_module("hydra.utils").instantiate
    wrapped = importlib.import_module("hydra.errors").InstantiationException

    def build(**changes: Any) -> Any:
        try:
            made = instantiate(node, **changes)
        except wrapped as error:
            failed = error
        else:
            return made() if isinstance(made, functools.partial) else made
        raise failed.__cause__ or failed  # the model's own exception says more

    return make(build, Call(call.attrs, True, (), call.kwargs, call.text), spec.text, ways)


def _library(name: str, path: Path) -> ModuleType:
    try:
        return importlib.import_module(name)
    except ImportError:
        raise TargetError(
            f"{shown(path)} is a Hydra configuration, and hydra-core is not installed",
            "pip install 'dropout-lint[hydra]', or name a factory of the project",
        ) from None


def _read(path: Path) -> Any:
    """The configuration of a file, composed where it says so."""
    omegaconf = _library("omegaconf", path).OmegaConf
    hydra = _library("hydra", path)
    with user_code(f"reading {shown(path)}"), warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of the two libraries about one another
        config = omegaconf.load(path)
        if not omegaconf.is_dict(config) or "defaults" not in config:
            return config
        with hydra.initialize_config_dir(str(path.resolve().parent), version_base=None):
            return hydra.compose(path.stem)


def _at(config: Any, key: str, spec: Spec) -> Any:
    omegaconf = importlib.import_module("omegaconf").OmegaConf
    node = omegaconf.select(config, key) if key else config
    if omegaconf.is_dict(node) and _TARGET in node:
        return node
    found = [name for name, _ in zip(_targets(config), range(_SHOWN + 1), strict=False) if name]
    file = shown(spec.path) if spec.path else ""
    what = f"`{file}` has no `{_TARGET}`" + (f" at `{key}`" if key else " of its own")
    named = ", ".join(f"`{file}:{name}`" for name in found[:_SHOWN])
    more = " and more" if len(found) > _SHOWN else ""
    raise TargetError(what, f"it has {named}{more}" if found else "name a file that says what is to be built")


def _targets(node: Any, key: str = "") -> Iterator[str]:
    """The keys under which something is described, outermost first."""
    omegaconf = importlib.import_module("omegaconf").OmegaConf
    if not omegaconf.is_dict(node):
        return
    if _TARGET in node:
        yield key
    for name in node:
        if not omegaconf.is_missing(node, name) and not omegaconf.is_interpolation(node, name):
            yield from _targets(node[name], f"{key}.{name}".lstrip("."))
