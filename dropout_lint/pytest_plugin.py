"""pytest plugin: the fixture `assert_no_dropout_shift`. Costs nothing until a test asks for it.

def test_dropout_is_where_it_belongs(assert_no_dropout_shift):
    assert_no_dropout_shift(Net(), torch.randn(8, 3, 32, 32))
"""

from __future__ import annotations

from collections.abc import Callable
from typing import Any

import pytest

from dropout_lint import testing


@pytest.fixture(scope="session")
def assert_no_dropout_shift() -> Callable[..., Any]:
    """`dropout_lint.testing.assert_no_dropout_shift(model, inputs=None, *, fail_on="warning", …)`."""
    return testing.assert_no_dropout_shift
