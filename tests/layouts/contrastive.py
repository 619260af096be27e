"""Checkpoints of contrastive methods, and MAE's."""

from typing import Any

import torch

from tests.layouts.base import RESNET, SWIN, VIT, Made, Weights, head, old_downsampling, prefixed, weights_of, zeros_like

MOCO_V3_HEADS = 12


def make() -> dict[str, Made]:
    vit, swin, resnet = (weights_of(spec) for spec in (VIT, SWIN, RESNET))
    moco_v3 = prefixed("module.base_encoder.", vit) | head("module.base_encoder.", "head.0.weight")
    moby = prefixed("encoder.", vit) | head("", "queue1", "projector.x")
    moby_swin = prefixed("encoder.", old_downsampling(swin)) | {
        "encoder.layers.0.blocks.1.attn_mask": torch.zeros(14**2, 16, 16),
        "encoder.layers.0.blocks.0.attn.relative_position_index": torch.zeros(16, 16, dtype=torch.int64),
    }
    densecl = prefixed("encoder_q.0.", resnet) | head("encoder_q.1.", "mlp.0.weight", "mlp2.0.weight")
    swav = prefixed("module.", resnet | head("", "projection_head.0.weight", "prototypes.weight"))
    mae_decoder = head("", "mask_token", "decoder_pos_embed", "decoder_embed.weight", "decoder_blocks.0.norm1.weight")
    return {
        "moco": Made("moco", _moco(resnet), RESNET, resnet),
        "resim": Made("resim", _moco(resnet, ("fpn_lateral3.weight", "fpn_output4.bias")), RESNET, resnet),
        "densecl": Made("densecl", _densecl(densecl, resnet), RESNET, resnet),
        "swav": Made("swav", swav, RESNET, resnet),
        "moby": Made("moby", {"model": moby, "epoch": 299}, VIT, vit),
        "moby_swin": Made("moby", {"model": moby_swin, "epoch": 299}, SWIN, swin),
        "moco_v3": Made("moco_v3", {"state_dict": moco_v3, "arch": "vit_small", "epoch": 300}, VIT, vit, num_heads=1),
        "mae": Made("mae", {"model": vit | mae_decoder, "epoch": 799}, VIT, vit),
    }


def _moco(weights: Weights, extra: tuple[str, ...] = ()) -> Any:
    encoder = prefixed("module.encoder_q.", weights) | head("module.encoder_q.", "fc.0.weight", "fc.2.weight", *extra)
    other = {name.replace("encoder_q", "encoder_k"): tensor for name, tensor in zeros_like(encoder).items()}
    queues = head("module.", "queue", "queue_ptr")
    return {"epoch": 200, "arch": "resnet50", "state_dict": encoder | other | queues, "optimizer": {}}


def _densecl(encoder: Weights, backbone: Weights) -> dict[str, Any]:
    other = {name.replace("encoder_q", "encoder_k"): tensor for name, tensor in zeros_like(encoder).items()}
    queues = head("", "queue", "queue_ptr", "queue2", "queue2_ptr")
    return {"meta": {"epoch": 200}, "state_dict": encoder | other | queues | prefixed("backbone.", zeros_like(backbone))}
