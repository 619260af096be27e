"""What the tables' rows are made from without their files: specs of backbones, toys of the same structure, and COCO's splits."""

from dataclasses import replace
from pathlib import Path
from typing import Any

from mmengine.optim import build_optim_wrapper

from backbones.spec import BackboneSpec, DINOv3Spec, ResNetSpec, SwinSpec, ViTSpec
from eval.detection.data import FULL_ANNOTATIONS, FULL_SIZES, FULL_TRAINABLE, Split

VIT_SMALL = ViTSpec(embed_dim=384, depth=12, num_heads=6, patch_size=16, image_size=224, class_token=False, final_norm=False)

ROWS: dict[str, BackboneSpec] = {
    "ViT-Ti/16": replace(VIT_SMALL, embed_dim=192, num_heads=3),
    "ViT-S/16": VIT_SMALL,
    "ViT-S/8": replace(VIT_SMALL, patch_size=8),
    "DINOv3 ViT-S/16": DINOv3Spec(embed_dim=384, depth=12, num_heads=6, patch_size=16, hidden_dim=1536, register_tokens=4),
    "Swin-T": SwinSpec(embed_dim=96, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7),
    "ResNet-50": ResNetSpec(layers=(3, 4, 6, 3)),
}


def toy(spec: BackboneSpec) -> BackboneSpec:
    """The same blocks, heads, patches and strides, with heads 8 channels wide; a ResNet has one block per stage."""
    match spec:
        case ViTSpec():
            return replace(spec, embed_dim=8 * spec.num_heads, image_size=64)
        case DINOv3Spec():
            return replace(spec, embed_dim=8 * spec.num_heads, hidden_dim=32)
        case SwinSpec():
            return replace(spec, embed_dim=8 * spec.num_heads[0])
        case ResNetSpec():
            return replace(spec, layers=(1, 1, 1, 1))


def check_decay(model: Any, optim_wrapper: Any, undecayed_layers: tuple[str, ...]) -> None:
    """Weight decay leaves alone the layers of these kinds, position embeddings and position biases, and nothing else."""
    groups = build_optim_wrapper(model, optim_wrapper).optimizer.param_groups
    undecayed = {id(value) for group in groups if group["weight_decay"] == 0 for value in group["params"]}
    layers = [layer for layer in model.modules() if type(layer).__name__ in undecayed_layers]
    assert {type(layer).__name__ for layer in layers} == set(undecayed_layers)
    wanted = [value for layer in layers for value in layer.parameters()]
    ends = ("relative_position_bias_table", "pos_embed")
    wanted += [value for name, value in model.named_parameters() if name.endswith(ends)]
    assert undecayed == {id(value) for value in wanted if value.requires_grad}


# Mask R-CNN and both heads of segmentation with thin layers: the path is the same and takes a tenth of the time.
WIDTHS = (
    *("neck.out_channels", "rpn_head.in_channels", "rpn_head.feat_channels"),
    *("roi_head.bbox_roi_extractor.out_channels", "roi_head.mask_roi_extractor.out_channels"),
    *("roi_head.bbox_head.in_channels", "roi_head.bbox_head.fc_out_channels"),
    *("roi_head.mask_head.in_channels", "roi_head.mask_head.conv_out_channels"),
)
THIN_MASK_RCNN = [f"model.{name}=16" for name in WIDTHS]
THIN_HEADS = {
    "fpn": ["model.neck.out_channels=8", "model.decode_head.in_channels=[8,8,8,8]", "model.decode_head.channels=8"],
    "upernet": ["model.decode_head.channels=8", "model.auxiliary_head.channels=8"],
}


def full_coco() -> dict[str, Split]:
    """The splits of the whole benchmark; images of val2017 count as annotated."""
    trainable = {**FULL_SIZES, "train2017": FULL_TRAINABLE}
    lines = tuple(f"{index}.jpg 1" for index in range(max(FULL_SIZES.values())))
    common: dict[str, Any] = {"root": Path("coco"), "limit": None, "categories": ((1, "person"),), "sizes": {}}
    return {
        name: Split(
            name=name,
            images=lines[:size],
            trainable=lines[: trainable[name]],
            num_annotations=FULL_ANNOTATIONS[name],
            annotations_sha256="0" * 64,
            **common,
        )
        for name, size in FULL_SIZES.items()
    }
