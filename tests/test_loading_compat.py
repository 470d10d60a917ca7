"""torchvision beside a torch that its compiled operators were not built for."""

from __future__ import annotations

import torch

from dropout_lint.loading.compat import (
    _nms,
    _roi_align,
    declare_missing_schemas,
    is_schema_error,
    with_schemas,
)


def test_torchvision_can_be_imported_and_again() -> None:
    declare_missing_schemas()
    import torchvision

    assert torchvision.models.resnet18 is not None
    assert declare_missing_schemas() is False


def test_only_missing_operators_are_tried_again() -> None:
    assert is_schema_error(RuntimeError("operator torchvision::nms does not exist"))
    assert not is_schema_error(RuntimeError("operator other::nms does not exist"))
    assert not is_schema_error(ValueError("operator torchvision::nms does not exist"))
    notes: list[str] = []
    assert with_schemas(lambda: 3, notes) == 3
    assert notes == []


def test_suppression_keeps_the_best_of_each_overlap() -> None:
    boxes = torch.tensor([[0.0, 0, 10, 10], [1, 1, 11, 11], [20, 20, 30, 30], [0, 0, 10, 5]])
    scores = torch.tensor([0.8, 0.9, 0.1, 0.5])
    assert _nms(boxes, scores, 0.5).tolist() == [1, 3, 2]
    assert _nms(boxes, scores, 0.99).tolist() == [1, 0, 3, 2]
    assert _nms(boxes[:0], scores[:0], 0.5).tolist() == []


def test_region_features_are_those_under_the_region() -> None:
    ramp = torch.arange(8.0).expand(2, 3, 8, 8) + torch.tensor([0.0, 100.0])[:, None, None, None]
    rois = torch.tensor([[0.0, 0, 0, 8, 8], [1, 2, 2, 6, 6], [0, 4, 0, 8, 4]])
    found = _roi_align(ramp, rois, 1.0, 2, 2, -1, True)
    assert found.shape == (3, 3, 2, 2)
    columns = torch.tensor([[1.5, 5.5], [102.5, 104.5], [4.5, 6.5]])
    assert torch.allclose(found, columns[:, None, None, :].expand(3, 3, 2, 2))
