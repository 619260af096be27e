"""A ResNet under Detectron2's names, as ReSim's `*_backbone_*` files and the converters of MoCo, DenseCL and DetCo write it.

`{model, __author__, matching_heuristics}`, the weights NumPy arrays or tensors. Such files hold torchvision-style networks (stride in
the 3 x 3 convolution, RGB); Detectron2's own MSRA models have the same names but another stride, and are refused by their author.
"""

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from torch import Tensor

from backbones.formats.architecture import refuse_num_heads, resnet_spec, with_batch_counters
from backbones.formats.base import Conversion, FormatError, abbreviate, is_state_dict
from backbones.formats.keys import KeyTable, apply_table, dropped, prefixed

NAME = "detectron2"
TYPICAL = "model/res2.0.conv1.norm.weight"
BRANCHES = ("model",)
LICENCE = "CC-BY-NC-4.0"  # of ReSim's and MoCo's repositories; other authors' files have their own
_NUMBERS = ("float16", "float32", "float64", "int32", "int64")
_PREFIXES = ("", "backbone.bottom_up.")
_MARK = "stem.conv1.weight"
_STAGES: KeyTable = {
    source.format(detectron=stage + 1, b="{i}", c="{j}"): target.format(torchvision=stage, b="{i}", c="{j}")
    for stage in (1, 2, 3, 4)
    for source, target in (
        ("res{detectron}.{b}.conv{c}.weight", "layer{torchvision}.{b}.conv{c}.weight"),
        ("res{detectron}.{b}.conv{c}.norm.*", "layer{torchvision}.{b}.bn{c}.*"),
        ("res{detectron}.{b}.shortcut.weight", "layer{torchvision}.{b}.downsample.0.weight"),
        ("res{detectron}.{b}.shortcut.norm.*", "layer{torchvision}.{b}.downsample.1.*"),
    )
}
_KEYS: KeyTable = {
    "stem.conv1.weight": "conv1.weight",
    "stem.conv1.norm.*": "bn1.*",
    **_STAGES,
    **dropped("stem.fc.*", "stem.fc1000.*", "fc1000.*", "fpn_lateral{i}.*", "fpn_output{i}.*"),
}


def matches(checkpoint: Any) -> bool:
    """Whether there is a stem under Detectron2's name."""
    return _prefix(checkpoint) is not None


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    refuse_num_heads(num_heads)
    if checkpoint.get("__author__") == "Caffe2":
        raise FormatError(
            "a network of Detectron's own (MSRA): its strides and its BGR input differ from torchvision's ResNets"
        )
    weights = {str(name): _as_tensor(name, value) for name, value in checkpoint[branch].items()}
    renamed, left_out = apply_table(weights, prefixed(_prefix(checkpoint) or "", _KEYS))
    state_dict = with_batch_counters(renamed)
    return Conversion(
        format=NAME, branch=branch, spec=resnet_spec(state_dict), state_dict=state_dict, dropped=left_out, epoch=-1
    )


def _prefix(checkpoint: Any) -> str | None:
    """What stands before the names; None where the stem is not found."""
    model = checkpoint.get("model") if isinstance(checkpoint, Mapping) else None
    if not isinstance(model, Mapping) or not (is_state_dict(model) or "__author__" in checkpoint):
        return None
    return next((prefix for prefix in _PREFIXES if prefix + _MARK in model), None)


def _as_tensor(name: object, value: object) -> Tensor:
    if isinstance(value, Tensor):
        return value
    if isinstance(value, (np.ndarray, np.generic)) and value.dtype.name in _NUMBERS:
        return torch.from_numpy(np.array(value))
    raise FormatError(f"{abbreviate([str(name)])} is neither a tensor nor an array of numbers but {type(value).__name__}")
