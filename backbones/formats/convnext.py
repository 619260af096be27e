"""ConvNeXts, among them DINOv3's smaller models, which are recognised and refused: no adapter here runs them.

Sources of the names: facebookresearch/dinov3, dinov3/models/convnext.py (those of facebookresearch/ConvNeXt); timm, convnext.py;
transformers, modeling_dinov3_convnext.py.
"""

from collections.abc import Mapping
from typing import Any, NoReturn

from backbones.formats.base import FormatError, weights_under

NAME = "convnext"
TYPICAL = "stages.0.0.dwconv.weight"
BRANCHES = ("model",)
LICENCE = "not stated"  # many sources share these names
_MARKS = {
    TYPICAL,
    "stages.0.blocks.0.conv_dw.weight",
    "stages.0.layers.0.depthwise_conv.weight",
    "model.stages.0.layers.0.depthwise_conv.weight",
}


def matches(checkpoint: Any) -> bool:
    """Whether the names are the authors', timm's or Hugging Face's."""
    return bool(_MARKS & set(weights_under(checkpoint, "", "model", "state_dict")))


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> NoReturn:
    """Refuse."""
    raise FormatError("a ConvNeXt (DINOv3's small models are such): not supported; ViTs, DINOv3's ViTs, Swins and ResNets are")
