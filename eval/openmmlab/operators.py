"""Prepares OpenMMLab's packages; import it before anything of mmcv.ops, mmdet or mmseg.

Importing it serves the compiled operators of mmcv that Mask R-CNN needs from torchvision, and makes mmengine read checkpoints safely.

mmcv installs without its extension `mmcv._ext` unless it is compiled on the spot, which takes a quarter of an hour and fails on
recent PyTorch. `install_operators` puts a module of that name in its place. mmcv looks operators up by name when `mmcv.ops` is
imported and asserts that each exists, so every name resolves; those that are not served raise when they are called.

Shapes: K regions of interest, N boxes, B images, C channels, H x W feature positions, h x w bins of one region.
"""

import contextlib
import importlib.util
import io
import logging
import sys
import warnings
from collections.abc import Callable, Iterator
from importlib.abc import Loader
from importlib.machinery import ModuleSpec
from pathlib import Path
from types import ModuleType
from typing import Any, NoReturn

import torch
import torchvision
from mmengine.runner.checkpoint import CheckpointLoader
from torch import Tensor

from backbones.checkpoint import load_checkpoint

logger = logging.getLogger(__name__)

EXTENSION = "mmcv._ext"
_AVERAGE_POOLING = 1
_LOOKS_FOR_OPERATORS = {"mmcv.ops", "mmdet.structures", "mmdet.models", "mmseg.models"}


def install_operators() -> None:
    """Serve mmcv's extension from torchvision unless the real one is there.

    ImportError if it comes too late: mmdet and mmseg put functions that only raise in place of operators that they miss.
    """
    if EXTENSION in sys.modules or importlib.util.find_spec(EXTENSION) is not None:
        return
    if early := sorted(_LOOKS_FOR_OPERATORS & set(sys.modules)):
        raise ImportError(
            f"import eval.openmmlab.operators before {', '.join(early)}: mmcv looks for operators when it is imported"
        )
    installed = sys.modules[EXTENSION] = _TorchvisionOperators(EXTENSION)
    # mmengine and mmcv ask importlib for the spec and its loader to see whether the extension exists.
    installed.__spec__ = ModuleSpec(EXTENSION, Loader(), origin="torchvision")
    vars(installed).update(_SERVED)
    # What importing a submodule does besides; find_spec has imported mmcv itself.
    sys.modules["mmcv"]._ext = installed  # type: ignore[attr-defined]


class _TorchvisionOperators(ModuleType):
    """Stands in for `mmcv._ext`."""

    def __getattr__(self, name: str) -> Callable[..., NoReturn]:
        if name.startswith("__"):
            raise AttributeError(name)

        def missing_operator(*args: object, **kwargs: object) -> NoReturn:
            raise NotImplementedError(
                f"mmcv's operator {name!r} is not compiled here and torchvision does not serve it (served: "
                f"{', '.join(_SERVED)}); install an mmcv with its compiled extension to use it"
            )

        return missing_operator


def nms(boxes: Tensor, scores: Tensor, iou_threshold: float, offset: int) -> Tensor:
    """Indices of the boxes that non-maximum suppression keeps, best score first.

    Of boxes [N, 4] by their corners; `offset`, 0 or 1, is added to a box's width and height (1: coordinates are pixel indices).
    """
    boxes = boxes.detach()
    if offset:
        # (x2 - x1 + 1) is the width of the box whose far corner lies one further; torchvision knows no offset.
        boxes = boxes + boxes.new_tensor([0.0, 0.0, offset, offset])
    # Widening changes neither overlaps of exact inputs nor the order of scores.
    return torchvision.ops.nms(_widen(boxes), _widen(scores.detach()), iou_threshold)


def roi_align_forward(features: Tensor, rois: Tensor, output: Tensor, *argmax: Tensor, **how: Any) -> None:
    """Write the average of bilinear samples in each bin of each region to `output` [K, C, h, w].

    The arguments are mmcv's own: features [B, C, H, W]; regions [K, 5], image index, then corners in input pixels; two of maximum
    pooling; and how to sample: `aligned_height` h and `aligned_width` w; `spatial_scale`, feature positions per input pixel;
    `sampling_ratio`, samples per bin and axis, 0 for as many as the bin has feature positions, rounded up; `pool_mode`, 1 for the
    average, 0 for the maximum, which is not served; `aligned`, whether pixel centres lie at half coordinates.
    """
    scale, size, sampling = _arguments(how)
    output.copy_(torch.ops.torchvision.roi_align(_widen(features), _widen(rois), scale, *size, *sampling))


def roi_align_backward(
    output_gradient: Tensor, rois: Tensor, argmax_y: Tensor, argmax_x: Tensor, features_gradient: Tensor, **how: Any
) -> None:
    """Gradient of `roi_align_forward` by the features; takes `output_gradient` [K, C, h, w], overwrites `features_gradient`."""
    scale, size, sampling = _arguments(how)
    shape = features_gradient.shape
    gradient = torch.ops.torchvision._roi_align_backward(_widen(output_gradient), _widen(rois), scale, *size, *shape, *sampling)
    features_gradient.copy_(gradient)


def _arguments(how: dict[str, Any]) -> tuple[float, tuple[int, int], tuple[int, bool]]:
    if how["pool_mode"] != _AVERAGE_POOLING:
        raise NotImplementedError("RoIAlign with maximum pooling is not compiled here and torchvision does not serve it")
    return how["spatial_scale"], (how["aligned_height"], how["aligned_width"]), (how["sampling_ratio"], how["aligned"])


_SERVED: dict[str, Any] = {f.__name__: f for f in (nms, roi_align_forward, roi_align_backward)}


def _widen(values: Tensor) -> Tensor:
    """Half precisions as float32: not every torchvision kernel takes them."""
    return values.float() if values.dtype in (torch.float16, torch.bfloat16) else values


def _load_plain_file(filename: str, map_location: str | torch.device | None) -> dict[str, object]:
    """Read a checkpoint that holds tensors and plain values only, as ours do; anything else is a CheckpointError.

    mmengine 0.10.12 tries `weights_only=True` with an allow-list that includes `getattr`, and unpickles anything where that fails.
    Our runs only read what they wrote themselves, so either could only ever meet a damaged or foreign file.
    """
    assert map_location == "cpu"
    checkpoint: dict[str, object] = load_checkpoint(Path(filename))
    return checkpoint


@contextlib.contextmanager
def quiet_packages() -> Iterator[None]:
    """Keep OpenMMLab's and pycocotools' chatter off the command's output; it goes to this module's debug log.

    They print on standard output, where a command's own result belongs, and warn of deprecations inside their own code.
    """
    printed = io.StringIO()
    try:
        with warnings.catch_warnings(), contextlib.redirect_stdout(printed):
            warnings.simplefilter("ignore")
            yield
    finally:
        for line in printed.getvalue().splitlines():
            logger.debug("%s", line)


install_operators()
CheckpointLoader.register_scheme(prefixes="", loader=_load_plain_file, force=True)
