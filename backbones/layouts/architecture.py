"""From weights under timm's names to the numbers of their architecture, for ViTs, DINOv3's ViTs, Swins and ResNets."""

import math
import re

from backbones.layouts.keys import LayoutError, Weights, abbreviate, count_numbered
from backbones.spec import DINOV3_PERIODS, STANDARD_HEAD_DIM, BackboneSpec, DINOv3Spec, MLPKind, ResNetSpec, SwinSpec, ViTSpec

_SMALL_WIDTH = 384
_LARGEST_SWIN = 2048  # pixels per side of pretraining images
_VIT_HEADS = {
    **{192: 3, 384: 6},  # ViT-Ti, ViT-S: Touvron et al., 2021 (DeiT), table 1
    **{768: 12, 1024: 16, 1280: 16},  # ViT-B, -L, -H: Dosovitskiy et al., 2021, table 1
    **{1152: 16, 1408: 16, 1664: 16},  # SO400M: Alabdulmohsin et al., 2023; ViT-g, ViT-G: Zhai et al., 2022, table 2
    1792: 16,  # ViT-e: Chen et al., 2023 (PaLI), table 8
    1536: 24,  # giant: Oquab et al., 2024 (DINOv2), table 17
    3200: 25,  # 6B: Chen et al., 2024 (InternVL), table 1
    6144: 48,  # 22B: Dehghani et al., 2023, table 1
}
_DINOV3_HEADS = {384: 6, 768: 12, 1024: 16, 1280: 20, 4096: 32}  # facebookresearch/dinov3, dinov3/hub/backbones.py
PUBLISHED_HEADS: dict[type, dict[int, int]] = {ViTSpec: _VIT_HEADS, DINOv3Spec: _DINOV3_HEADS}
"""Attention heads by family and width, as the authors state them; the weights do not show them."""


def complete_backbone(weights: Weights, num_heads: int | None, masks: Weights) -> tuple[BackboneSpec, Weights]:
    """Read the spec off weights under timm's names, and complete or reorder them as our networks have them.

    A ViT's heads are those of `usual_heads` unless `num_heads` states them; `masks` are a Swin's `attn_mask` buffers, where stored.
    ValueError if the weights are of no known family, or the number of heads is needed and not given.
    """
    import torch

    if "layer1.0.conv1.weight" in weights:
        refuse_num_heads(num_heads)
        layers = tuple(count_numbered(weights, f"layer{stage}.") for stage in (1, 2, 3, 4))
        # Older files lack the batch counters of BatchNorm, which with a fixed momentum change no feature.
        means = [name for name in weights if name.endswith("running_mean")]
        counters = {name.replace("running_mean", "num_batches_tracked"): torch.tensor(0) for name in means}
        return ResNetSpec(layers=layers), {**counters, **weights}
    if any(name.startswith("layers.0.blocks.") for name in weights):
        refuse_num_heads(num_heads)
        weights = _downsampling_first(weights)
        return _swin_spec(weights, masks), weights
    if "blocks.0.gamma_1" in weights:
        weights = weights if DINOV3_PERIODS in weights else with_periods(weights, num_heads)
        return _dinov3_spec(weights, num_heads), weights
    return vit_spec(weights, num_heads), weights


def usual_heads(family: type, embed_dim: int) -> int:
    """Heads as published for this width, else one per 64 channels; 0 where that does not divide, and only the author knows."""
    standard = 0 if embed_dim % STANDARD_HEAD_DIM else embed_dim // STANDARD_HEAD_DIM
    return PUBLISHED_HEADS[family].get(embed_dim, standard)


def refuse_num_heads(num_heads: int | None) -> None:
    """Raise LayoutError if the heads of a network are chosen that shows them."""
    if num_heads is not None:
        raise LayoutError("--num-heads applies to ViTs only; the weights of this family show their heads")


def vit_spec(state_dict: Weights, num_heads: int | None) -> ViTSpec:
    """Read a ViT's numbers off its weights; arguments and errors are those of `complete_backbone`.

    Positions are resampled by DINO's rule, which the published evaluations share, whatever the layout; with register tokens by that
    of DINOv2's models with registers, which is also timm's.
    """
    try:
        embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
        hidden, _ = state_dict["blocks.0.mlp.fc1.weight"].shape
        _, values = state_dict["blocks.0.mlp.fc2.weight"].shape
        _, positions, _ = state_dict["pos_embed"].shape
        registers = state_dict["reg_token"].shape[1] if "reg_token" in state_dict else 0
    except (KeyError, ValueError, IndexError) as error:
        raise LayoutError(f"not the weights of a ViT ({error}); the names are {abbreviate(state_dict)}") from error
    class_token = "cls_token" in state_dict
    class_position = class_token and math.isqrt(max(positions - 1, 0)) ** 2 == positions - 1
    grid_side = math.isqrt(positions - class_position)
    if grid_side**2 != positions - class_position:
        raise LayoutError(f"pos_embed covers {positions} patches, which is not a square grid")
    if num_heads is None and embed_dim == _SMALL_WIDTH and class_position and not state_dict["pos_embed"][:, 0].any():
        what = "fixed sine-cosine positions, as of MoCo-v3's ViT-S, which has 12 heads where every other ViT-S has 6"
        hints = [("--num-heads", "12"), ("--num-heads", "6")]
        raise LayoutError(f"the CLS token's position is zero: {what}; say which with --num-heads", hints)
    num_heads = num_heads or usual_heads(ViTSpec, embed_dim)
    if not num_heads and embed_dim:
        width = f"embed_dim={embed_dim} is not a multiple of {STANDARD_HEAD_DIM}, the usual width of a head"
        raise ValueError(f"the weights do not show the number of attention heads, and {width}; pass --num-heads")
    mlp: MLPKind = "swiglu" if values * 2 == hidden else "gelu"
    return ViTSpec(
        embed_dim=embed_dim,
        depth=count_numbered(state_dict, "blocks."),
        num_heads=num_heads,
        patch_size=patch_size,
        image_size=grid_side * patch_size,
        class_token=class_token,
        final_norm="norm.weight" in state_dict,
        mlp_ratio=_ratio(hidden, embed_dim),
        mlp=mlp,
        layer_scale="blocks.0.ls1.gamma" in state_dict,
        register_tokens=registers,
        class_position=class_position or not class_token,
        position_rule="antialias" if registers else "dino",
    )


def _ratio(hidden: int, embed_dim: int) -> float:
    """The smallest float near hidden / embed_dim that gives `hidden` back when timm multiplies and truncates."""
    ratio = hidden / max(embed_dim, 1)
    return ratio if int(embed_dim * ratio) == hidden else math.nextafter(ratio, math.inf)


def _dinov3_spec(state_dict: Weights, num_heads: int | None) -> DINOv3Spec:
    """Read a DINOv3 ViT's numbers off its weights; the rotary periods show the heads, which `num_heads` must not contradict."""
    gate = "blocks.0.mlp.fc1_g.weight"
    mlp: MLPKind = "swiglu" if gate in state_dict else "gelu"
    try:
        embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
        hidden, _ = state_dict[gate if mlp == "swiglu" else "blocks.0.mlp.fc1.weight"].shape
        (periods,) = state_dict[DINOV3_PERIODS].shape
        registers = state_dict["reg_token"].shape[1] if "reg_token" in state_dict else 0
    except (KeyError, ValueError, IndexError) as error:
        raise LayoutError(f"not the weights of a DINOv3 ({error}); the names are {abbreviate(state_dict)}") from error
    heads, rest = divmod(embed_dim, max(4 * periods, 1))
    if rest or not heads:
        raise LayoutError(f"{periods} rotary periods do not fit a width of {embed_dim}: a head is four times as wide")
    if num_heads not in (None, heads):
        raise LayoutError(f"--num-heads {num_heads} contradicts the rotary periods, which are those of {heads} heads")
    return DINOv3Spec(
        embed_dim=embed_dim,
        depth=count_numbered(state_dict, "blocks."),
        num_heads=heads,
        patch_size=patch_size,
        hidden_dim=hidden,
        mlp=mlp,
        query_value_bias="blocks.0.attn.q_bias" in state_dict,
        register_tokens=registers,
    )


def with_periods(state_dict: Weights, num_heads: int | None) -> Weights:
    """Add the rotary periods, as timm and Hugging Face compute them, to weights of theirs, which do not hold them.

    The heads are those of the published model of this width, else 64 channels wide, unless `num_heads` states them.
    """
    from backbones.vit import computed_periods

    patches = state_dict["patch_embed.proj.weight"]
    embed_dim = len(patches) if patches.ndim else 0
    heads = num_heads or usual_heads(DINOv3Spec, embed_dim)
    if not heads or embed_dim % (4 * heads):
        raise LayoutError(f"{heads} heads do not divide a width of {embed_dim} into multiples of 4; pass --num-heads")
    return {**state_dict, DINOV3_PERIODS: computed_periods(embed_dim // heads)}


def _downsampling_first(state_dict: Weights) -> Weights:
    """Move each downsampling from the end of its stage to the beginning of the next, where timm >= 0.9 has it."""
    if not any(name.startswith("layers.0.downsample.") for name in state_dict):
        return state_dict
    pattern = re.compile(r"(?<=^layers\.)\d+(?=\.downsample\.)")
    return {pattern.sub(lambda stage: str(int(stage[0]) + 1), name): tensor for name, tensor in state_dict.items()}


def _swin_spec(state_dict: Weights, masks: Weights) -> SwinSpec:
    """Read a Swin transformer's numbers off its weights: the bias tables show windows and heads."""
    stages = range(count_numbered(state_dict, "layers."))
    try:
        embed_dim, _, patch_size, _ = state_dict["patch_embed.proj.weight"].shape
        tables = [tuple(state_dict[f"layers.{stage}.blocks.0.attn.relative_position_bias_table"].shape) for stage in stages]
        num_heads = tuple(heads for _, heads in tables)
    except (KeyError, ValueError) as error:
        raise LayoutError(f"not the weights of a Swin ({error}); the names are {abbreviate(state_dict)}") from error
    # A window of side s has (2s-1)^2 relative positions.
    windows = [(round(positions**0.5) + 1) // 2 for positions, _ in tables]
    return SwinSpec(
        embed_dim=embed_dim,
        depths=tuple(count_numbered(state_dict, f"layers.{stage}.blocks.") for stage in stages),
        num_heads=num_heads,
        window_size=windows[0],
        patch_size=patch_size,
        image_size=_pretraining_size(masks, windows, patch_size),
    )


def _pretraining_size(masks: Weights, windows: list[int], patch_size: int) -> int:
    """Side in pixels of the images that a Swin was trained on, for which it has these windows and masks; 224 if it can be that.

    A stage that is smaller than the first stage's window has one window of its own size. A shifted block's mask
    [windows, window size^2, window size^2] has an entry for each window of these images, the padded ones included.
    """
    shown: dict[int, set[int]] = {}  # Windows per side of each stage with masks.
    for name, mask in masks.items():
        match = re.search(r"layers\.(\d+)\.blocks\.\d+\.attn_mask$", name)
        stage = int(match[1]) if match else len(windows)
        count = math.isqrt(mask.shape[0]) if mask.ndim == 3 else 0
        if stage >= len(windows) or mask.shape != (count**2, windows[stage] ** 2, windows[stage] ** 2):
            raise LayoutError(
                f"{name} of shape {tuple(mask.shape)} is not a mask for windows of side {windows[: stage + 1][-1]}"
            )
        shown.setdefault(stage, set()).add(count)

    def fits(size: int) -> bool:
        sides = [size // (patch_size * 2**stage) for stage in range(len(windows))]
        has_windows = all(min(side, windows[0]) == window for side, window in zip(sides, windows, strict=True))
        return has_windows and all({math.ceil(sides[stage] / windows[stage])} == counts for stage, counts in shown.items())

    stride = patch_size * 2 ** (len(windows) - 1)
    # A stage that its windows divide is likelier than one that was padded.
    exact = [min(counts) * windows[stage] * patch_size * 2**stage for stage, counts in sorted(shown.items())]
    exact = [size for size in exact if size % stride == 0]
    for size in (*exact, SwinSpec.image_size, windows[-1] * stride, *range(stride, _LARGEST_SWIN, stride)):
        if fits(size):
            return size
    stated = f"windows of sides {windows}" + (f" and {shown} of them per side" if shown else "")
    raise LayoutError(f"no image size gives a Swin of patch size {patch_size} {stated}")
