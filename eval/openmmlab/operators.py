"""mmcv's compiled operators that Mask R-CNN needs, served from torchvision.

mmcv installs without its extension `mmcv._ext` unless it is compiled on the spot, which takes a quarter of an hour and fails on
recent PyTorch. `install_operators` puts a module of that name in its place. mmcv looks operators up by name when `mmcv.ops` is
imported and asserts that each exists, so every name resolves; those that are not served raise when called.

Shapes: K regions of interest, N boxes, B images, C channels, H x W feature positions, h x w bins of one region.
"""

import importlib.util
import sys
from collections.abc import Callable
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, NoReturn

import torch
import torchvision
from torch import Tensor

EXTENSION = "mmcv._ext"
_AVERAGE_POOLING = 1
_LOOKS_FOR_OPERATORS = {"mmcv.ops", "mmdet.structures", "mmdet.models", "mmseg.models"}


class MissingOperatorError(NotImplementedError):
    """An mmcv operator that is neither compiled nor served from torchvision."""


def install_operators() -> bool:
    """Serve mmcv's extension from torchvision unless the real one is there.

    Call it before anything that looks for operators is imported. Calling it again does nothing.

    Returns:
        Whether torchvision serves the operators.

    Raises:
        ImportError: If it comes too late: mmdet and mmseg put functions that only raise in place of operators that they miss.
    """
    installed = sys.modules.get(EXTENSION)
    if installed is None and importlib.util.find_spec(EXTENSION) is None:
        if early := sorted(_LOOKS_FOR_OPERATORS & set(sys.modules)):
            raise ImportError(f"import eval.openmmlab before {', '.join(early)}: mmcv's operators have to be in place first")
        # With a spec and a loader: mmengine and mmcv ask importlib.util.find_spec whether the extension exists.
        spec = ModuleSpec(EXTENSION, _TorchvisionLoader(), origin="torchvision")
        installed = importlib.util.module_from_spec(spec)
        vars(installed).update(_SERVED)
        sys.modules[EXTENSION] = installed
        # What importing a submodule does besides; find_spec has imported mmcv itself.
        sys.modules["mmcv"]._ext = installed  # type: ignore[attr-defined]
    return isinstance(installed, _TorchvisionOperators)


class _TorchvisionOperators(ModuleType):
    """Stands in for `mmcv._ext`."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing_operator(*args: object, **kwargs: object) -> NoReturn:
            raise MissingOperatorError(
                f"mmcv's operator {name!r} is not compiled here and torchvision does not serve it (served: "
                f"{', '.join(_SERVED)}); install an mmcv with its compiled extension to use it"
            )

        return missing_operator


class _TorchvisionLoader(Loader):
    """Makes the stand-in module."""

    def create_module(self, spec: ModuleSpec) -> ModuleType:
        return _TorchvisionOperators(spec.name)

    def exec_module(self, module: ModuleType) -> None:
        """Nothing to execute: `install_operators` fills the module."""


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that non-maximum suppression keeps, best score first.

    Args:
        boxes: [N, 4] corners.
        scores: [N].
        iou_threshold: A box that overlaps a better one by more is dropped.
        offset: 0 or 1; added to a box's width and height (1: coordinates are pixel indices).
    """
    boxes = boxes.detach()
    if offset:
        # (x2 - x1 + 1) is the width of the box whose far corner lies one further; torchvision knows no offset.
        boxes = boxes + boxes.new_tensor([0.0, 0.0, offset, offset])
    # torchvision's kernels take no bfloat16; widening changes neither overlaps of exact inputs nor the order of scores.
    return torchvision.ops.nms(_widen(boxes), _widen(scores.detach()), iou_threshold)


def roi_align_forward(
    features: Tensor,
    rois: Tensor,
    output: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Average of bilinear samples in each bin of each region, written to `output`.

    Args:
        features: [B, C, H, W].
        rois: [K, 5]: image index, then corners in input pixels.
        output: [K, C, h, w], overwritten.
        argmax_y: Unused; belongs to maximum pooling.
        argmax_x: Unused; belongs to maximum pooling.
        aligned_height: h.
        aligned_width: w.
        spatial_scale: Feature positions per input pixel.
        sampling_ratio: Samples per bin and axis; 0 for as many as the bin has feature positions, rounded up.
        pool_mode: 1 for the average; 0, the maximum, is not served.
        aligned: Whether pixel centres lie at half coordinates.
    """
    del argmax_y, argmax_x
    _require_average_pooling(pool_mode)
    bins = torch.ops.torchvision.roi_align(
        _widen(features), _widen(rois), spatial_scale, aligned_height, aligned_width, sampling_ratio, aligned
    )
    output.copy_(bins)


def roi_align_backward(
    output_gradient: Tensor,
    rois: Tensor,
    argmax_y: Tensor,
    argmax_x: Tensor,
    features_gradient: Tensor,
    *,
    aligned_height: int,
    aligned_width: int,
    spatial_scale: float,
    sampling_ratio: int,
    pool_mode: int,
    aligned: bool,
) -> None:
    """Gradient of `roi_align_forward` with respect to the features, written to `features_gradient`.

    Args:
        output_gradient: [K, C, h, w].
        rois: As given to `roi_align_forward`, like every argument not named here.
        argmax_y: Unused.
        argmax_x: Unused.
        features_gradient: [B, C, H, W], overwritten.
        aligned_height: h.
        aligned_width: w.
        spatial_scale: As forward.
        sampling_ratio: As forward.
        pool_mode: As forward.
        aligned: As forward.
    """
    del argmax_y, argmax_x
    _require_average_pooling(pool_mode)
    gradient = torch.ops.torchvision._roi_align_backward(
        _widen(output_gradient),
        _widen(rois),
        spatial_scale,
        aligned_height,
        aligned_width,
        *features_gradient.shape,
        sampling_ratio,
        aligned,
    )
    features_gradient.copy_(gradient)


_SERVED: dict[str, Any] = {
    "nms": nms,
    "roi_align_forward": roi_align_forward,
    "roi_align_backward": roi_align_backward,
}


def _widen(values: Tensor) -> Tensor:
    """Half precisions as float32: not every torchvision kernel takes them."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _require_average_pooling(pool_mode: int) -> None:
    if pool_mode != _AVERAGE_POOLING:
        raise MissingOperatorError("RoIAlign with maximum pooling is not compiled here and torchvision does not serve it")
