"""MAE's pretraining checkpoint with its decoder (facebookresearch/mae, models_mae.py and util/misc.py).

`{model, optimizer, epoch, scaler, args}`; the released encoders (`{model}` without a decoder) are timm's layout, see
`backbones.formats.timm`. Positions are fixed sine-cosine ones, stored. `epoch` is the index of the last epoch, counted from 0.
"""

from collections.abc import Mapping
from typing import Any

from backbones.formats.architecture import take_backbone
from backbones.formats.base import Conversion, is_state_dict, stated_epoch, weights_under
from backbones.formats.keys import dropped

NAME = "mae"
TYPICAL = "model/decoder_embed.weight"
BRANCHES = ("encoder",)
LICENCE = "CC-BY-NC-4.0"  # of the authors' repository
_DECODER = ("mask_token", "decoder_pos_embed", "decoder_embed.*", "decoder_blocks.*", "decoder_norm.*", "decoder_pred.*")


def matches(checkpoint: Any) -> bool:
    """Whether there is a decoder beside a ViT."""
    return {"decoder_embed.weight", "patch_embed.proj.weight"} <= set(weights_under(checkpoint, "model", ""))


def convert(checkpoint: Mapping[str, Any], branch: str, num_heads: int | None) -> Conversion:
    """See `backbones.formats.base`."""
    taken = take_backbone(weights_under(checkpoint, "model", ""), "", dropped(*_DECODER), num_heads)
    last_epoch = -1 if is_state_dict(checkpoint) else stated_epoch(checkpoint)
    return Conversion(
        format=NAME,
        branch=branch,
        spec=taken.spec,
        state_dict=taken.state_dict,
        dropped=taken.dropped,
        epoch=last_epoch + 1 if last_epoch >= 0 else -1,
    )
