"""What a backbone is: the numbers that, with the weights, determine its features, and how they read in words.

A spec travels inside every backbone file (`backbones.file`) and inside every result. Head counts in particular cannot be recovered
from weight shapes, so nothing here has a guessed default: the layouts fill every field or ask the user. This module loads no torch.
"""

import dataclasses
import math
import re
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Literal, get_args

from common.files import one_line

# Width per attention head in every ViT of DINO, SelfPatch, MoBY and timm (192/3, 384/6, 768/12, 1024/16).
# MoCo-v3's ViT-S (12 heads of 32) is the known exception.
STANDARD_HEAD_DIM = 64

DINOV3_PERIODS = "rope.periods"  # Name of the rotary periods among a DINOv3's weights.

# The least and the most of each number, far beyond every published network: an absurd one must not be built before its weights are
# compared with it.
_RANGES: dict[str, tuple[float, int]] = {
    "embed_dim": (1, 2**15),
    "hidden_dim": (1, 2**18),
    "mlp_ratio": (1e-15, 64),
    "num_heads": (1, 2**10),
    "register_tokens": (0, 2**10),
    "norm_epsilon": (1e-15, 1),
    "depth": (1, 100),
    "depths": (1, 100),  # at most, of all stages together, like `layers`
    "layers": (1, 200),
    "patch_size": (1, 2**10),
    "image_size": (1, 2**12),
    "window_size": (1, 64),
    "channels": (1, 2**15),
    "strides": (1, 2**10),
    "size_step": (0, 2**12),
}
_MOST_STAGES = 8
MOST_MAPS = 200
_NAME = r"[A-Za-z0-9_.:-]{1,200}"
_LARGEST_BUFFERS = 2**32  # bytes; a Swin's follow from its numbers and are in no file

MLPKind = Literal["gelu", "swiglu"]
PositionRule = Literal["dino", "antialias"]


@dataclass(frozen=True, kw_only=True)
class _Transformer:
    """What all transformers have whose blocks are of one width and one stride."""

    embed_dim: int  # Width of the tokens.
    depth: int
    num_heads: int  # Attention heads per block; a ViT's weights do not show them.
    patch_size: int  # Side in pixels.

    @property
    def num_blocks(self) -> int:
        return self.depth


@dataclass(frozen=True, kw_only=True)
class ViTSpec(_Transformer):
    """A vision transformer in timm's layout. ValueError if the numbers do not fit each other."""

    family: ClassVar[str] = "vit"

    image_size: int  # Side in pixels of the square image whose patch grid the stored position embeddings cover.
    class_token: bool  # Whether a CLS token with a position of its own precedes the patch tokens.
    final_norm: bool  # Whether a LayerNorm follows the last block.
    mlp_ratio: float = 4.0
    """Width of the MLP's first layer over `embed_dim`. That of `swiglu` holds gate and value: half of it is the hidden width."""
    mlp: MLPKind = "gelu"  # `gelu`: two linear layers; `swiglu`: a gated MLP, gate first (DINOv2's giant model).
    layer_scale: bool = False  # Whether each branch of a block ends with a learnt factor per channel.
    register_tokens: int = 0
    """Tokens without a position between the CLS token and the patches; neither `forward_tokens` nor `forward_maps` returns them."""
    class_position: bool = True
    """Whether the stored positions begin with one for the CLS token; without effect where there is no CLS token."""
    position_rule: PositionRule = "dino"
    """How positions are resampled to other grids than the stored one (`backbones.vit.resize_positions`)."""
    norm_epsilon: float = 1e-6  # What each LayerNorm adds to the variance.

    def __post_init__(self) -> None:
        _check_fields(self)
        if self.register_tokens and self.class_token and self.class_position:
            raise ValueError("with register tokens the CLS token's position must be part of the token: class_position=False")
        if self.embed_dim % self.num_heads:
            raise ValueError(f"num_heads={self.num_heads} does not divide embed_dim={self.embed_dim}")
        if self.image_size % self.patch_size:
            raise ValueError(f"image_size={self.image_size} is not a multiple of patch_size={self.patch_size}")

    @property
    def grid_side(self) -> int:
        """Patches per side of the stored position grid."""
        return self.image_size // self.patch_size

    @property
    def num_prefix_positions(self) -> int:
        """How many of the stored positions precede those of the patches: 1 for a CLS token that has one, else 0."""
        return int(self.class_token and self.class_position)


@dataclass(frozen=True, kw_only=True)
class DINOv3Spec(_Transformer):
    """A DINOv3 vision transformer in timm's layout (`eva.py`): rotary positions, a CLS token, LayerScale, a final norm.

    A head's width is four times the number of stored rotary periods. ValueError if the numbers do not fit each other.
    """

    family: ClassVar[str] = "dinov3"
    class_token: ClassVar[bool] = True
    final_norm: ClassVar[bool] = True

    hidden_dim: int  # Width of the MLP's hidden layer.
    register_tokens: int  # Same meaning as in `ViTSpec`.
    mlp: MLPKind = "gelu"  # `gelu`: two linear layers; `swiglu`: a gated MLP (the sizes S+, L+, H+ and 7B).
    query_value_bias: bool = True  # Whether queries and values have a bias; keys never have.

    def __post_init__(self) -> None:
        _check_fields(self)
        if self.embed_dim % (4 * self.num_heads):
            needed = "into widths that are multiples of 4, which rotary positions in two dimensions need"
            raise ValueError(f"num_heads={self.num_heads} does not divide embed_dim={self.embed_dim} {needed}")


@dataclass(frozen=True, kw_only=True)
class SwinSpec:
    """A Swin transformer in timm's layout (timm >= 0.9: each stage begins with its downsampling)."""

    family: ClassVar[str] = "swin"

    embed_dim: int  # Width of the first stage; every further stage doubles it.
    depths: tuple[int, ...]  # Blocks of each stage.
    num_heads: tuple[int, ...]
    window_size: int  # Side of an attention window in tokens.
    patch_size: int = 4
    image_size: int = 224
    """Side in pixels of the pretraining images; a stage smaller than `window_size` at this size has windows of its own size."""

    def __post_init__(self) -> None:
        _check_fields(self)
        if len(self.depths) != len(self.num_heads):
            raise ValueError(f"depths={self.depths} and num_heads={self.num_heads} must have one entry per stage")
        if any(self.embed_dim * 2**stage % heads for stage, heads in enumerate(self.num_heads)):
            raise ValueError(f"num_heads={self.num_heads} do not divide the stages' widths, {self.embed_dim} doubled per stage")
        side = self.image_size // self.patch_size
        if side < 2 ** (len(self.depths) - 1):
            given = f"image_size={self.image_size}, patch_size={self.patch_size}"
            raise ValueError(f"{given}: too small for {len(self.depths)} stages")
        # The relative positions and the mask of each block.
        if sum(self.depths) * (8 * self.window_size**4 + 4 * side**2 * self.window_size**2) > _LARGEST_BUFFERS:
            given = f"window_size={self.window_size}, image_size={self.image_size}"
            raise ValueError(f"{given}: takes more memory than any known Swin")

    @property
    def num_blocks(self) -> int:
        return len(self.depths)


@dataclass(frozen=True, kw_only=True)
class ResNetSpec:
    """A bottleneck ResNet with torchvision's (equally timm's) weight names; ResNet-50 is (3, 4, 6, 3)."""

    family: ClassVar[str] = "resnet"

    layers: tuple[int, ...]  # Bottleneck blocks per stage.

    def __post_init__(self) -> None:
        _check_fields(self)
        if len(self.layers) != 4:
            raise ValueError(f"layers={self.layers}: a ResNet has four stages of at least one block")

    @property
    def num_blocks(self) -> int:
        return len(self.layers)


@dataclass(frozen=True, kw_only=True)
class _Foreign:
    """A network that is none of ours, by its maps, which were measured by running it (`backbones.foreign`)."""

    channels: tuple[int, ...]  # Width of each map that can be tapped, the earliest first.
    strides: tuple[int, ...]  # Input pixels per position of each.
    image_size: int  # Side in pixels of a square image that it takes.
    size_step: int  # What the sides of all other images are multiples of; 0: it takes no other.

    def __post_init__(self) -> None:
        _check_fields(self)  # type: ignore[arg-type]  # of which every family is one
        if len(self.channels) != len(self.strides):
            raise ValueError(f"channels={self.channels} and strides={self.strides} must have one entry per map")

    @property
    def num_blocks(self) -> int:
        return len(self.channels)


@dataclass(frozen=True, kw_only=True)
class TimmSpec(_Foreign):
    """Any model of timm that offers its intermediate features, as timm builds it without a classifier."""

    family: ClassVar[str] = "timm"

    name: str  # As in `timm.list_models()`, with or without the tag of its weights.
    rebuilt: bool = False
    """Whether timm's network takes one size only, so that it is built anew for each, with its positions resampled."""


@dataclass(frozen=True, kw_only=True)
class FunctionSpec(_Foreign):
    """The network that a user's function returns; in no file, because whoever reads one must not run what it names."""

    family: ClassVar[str] = "function"

    function: str  # `package.module:function`
    source_sha256: str  # Digest of the files in which the function and its network are defined.

    @property
    def name(self) -> str:
        return self.function


PlainViTSpec = ViTSpec | DINOv3Spec  # Transformers all of whose blocks have one width and one stride.
ForeignSpec = TimmSpec | FunctionSpec
BackboneSpec = ViTSpec | DINOv3Spec | SwinSpec | ResNetSpec | TimmSpec | FunctionSpec


def typical_image_size(spec: BackboneSpec) -> int:
    """Side in pixels of a square image that the network takes: that of pretraining where the spec states it, else some 224."""
    if isinstance(spec, ViTSpec | SwinSpec | ForeignSpec):
        return spec.image_size
    return 14 * spec.patch_size if isinstance(spec, DINOv3Spec) else 224


def spec_to_dict(spec: BackboneSpec) -> dict[str, Any]:
    """The spec as JSON-ready values, with its family; without a usual epsilon, which files did not always state."""
    fields = {name: list(value) if isinstance(value, tuple) else value for name, value in dataclasses.asdict(spec).items()}
    if fields.get("norm_epsilon") == ViTSpec.norm_epsilon:
        del fields["norm_epsilon"]
    return {"family": spec.family, **fields}


def spec_from_dict(values: Mapping[str, Any], with_functions: bool = False) -> BackboneSpec:
    """The inverse of `spec_to_dict`; ValueError for an unknown family and for missing, unknown and impossible fields.

    A function's spec is known only to who asks for it, since whoever reads a backbone file must not run what it names.
    """
    if not isinstance(values, Mapping):
        raise ValueError(f"not a spec but {shown(values)}")
    fields: dict[str, Any] = {name: tuple(value) if isinstance(value, list) else value for name, value in values.items()}
    family = fields.pop("family", None)
    families = {spec.family: spec for spec in get_args(BackboneSpec) if with_functions or spec is not FunctionSpec}
    if not isinstance(family, str) or family not in families:
        raise ValueError(f"unknown backbone family {shown(family)}; known: {', '.join(families)}")
    try:
        spec: BackboneSpec = families[family](**fields)
        return spec
    except TypeError as error:
        raise ValueError(f"not a {family} spec: {one_line(str(error), 200)}") from error


_VIT_SIZES = {(192, 12): "Ti", (384, 12): "S", (768, 12): "B", (1024, 24): "L"}
_DINOV3_SIZES = {**_VIT_SIZES, (1280, 32): "H", (4096, 40): "7B"}
_RESNET_DEPTHS = {(3, 4, 6, 3): "R50", (3, 4, 23, 3): "R101", (3, 8, 36, 3): "R152"}
_SWIN_SIZES = {(96, (2, 2, 6, 2)): "Swin-T", (96, (2, 2, 18, 2)): "Swin-S", (128, (2, 2, 18, 2)): "Swin-B"}


def architecture_name(spec: Mapping[str, Any]) -> str:
    """A backbone's name as papers write it, such as `ViT-S/16`, from the values of `spec_to_dict`, which results hold.

    A ViT with an unusual number of heads states it. KeyError for a missing field, ValueError for an unknown family.
    """
    match spec["family"]:
        case "vit":
            width, depth, patch = spec["embed_dim"], spec["depth"], spec["patch_size"]
            size = _VIT_SIZES.get((width, depth))
            name = f"ViT-{size}/{patch}" if size else f"ViT/{patch}, {width} wide, {depth} deep"
            return name if spec["num_heads"] * STANDARD_HEAD_DIM == width else f"{name}, {spec['num_heads']} heads"
        case "dinov3":
            width, depth, patch = spec["embed_dim"], spec["depth"], spec["patch_size"]
            size = _DINOV3_SIZES.get((width, depth))
            # A plus marks the gated MLP, except where a size has no other.
            plus = "+" if spec["mlp"] == "swiglu" and size != "7B" else ""
            return f"ViT-{size}{plus}/{patch}" if size else f"DINOv3 ViT/{patch}, {width} wide, {depth} deep"
        case "resnet":
            layers = tuple(spec["layers"])
            return _RESNET_DEPTHS.get(layers, f"ResNet {'-'.join(map(str, layers))}")
        case "swin":
            depths = tuple(spec["depths"])
            unnamed = f"Swin {'-'.join(map(str, depths))}, {spec['embed_dim']} wide"
            return _SWIN_SIZES.get((spec["embed_dim"], depths), unnamed)
        case "timm":
            return str(spec["name"])
        case "function":
            return str(spec["function"])
        case family:
            raise ValueError(f"unknown backbone family {family!r}")


def is_function_name(source: Path) -> bool:
    """Whether this names a user's function, such as `my_package.my_module:build`, and not a file or a model of timm."""
    part = r"[A-Za-z_]\w*"
    is_name = re.fullmatch(rf"{part}(\.{part})*:{part}", str(source)) is not None
    return is_name and not str(source).startswith("timm:") and not source.exists()


def spec_in_words(spec: BackboneSpec) -> str:
    """The name, and every number that has no usual value, such as `ViT-S/16: embed dim 384, depth 12, num heads 6, ...`."""
    unusual = [field.name for field in dataclasses.fields(spec) if getattr(spec, field.name) != field.default]
    words = [f"{name.replace('_', ' ')} {_in_words(getattr(spec, name))}" for name in unusual]
    return f"{architecture_name(spec_to_dict(spec))}: {', '.join(words)}"


def _in_words(value: object) -> str:
    if isinstance(value, bool):
        return "yes" if value else "no"
    if isinstance(value, tuple):
        return f"{len(value)} x {value[0]}" if len(value) > _MOST_STAGES and len(set(value)) == 1 else "-".join(map(str, value))
    return str(value)


def _check_fields(spec: BackboneSpec) -> None:
    """Raise ValueError unless every field has exactly its type (True and 2.0 are no integers) and a value that a network can have."""
    for field in dataclasses.fields(spec):
        value = getattr(spec, field.name)
        if fault := _fault(field.name, field.type, value):
            raise ValueError(f"{field.name}={shown(value)}{fault}")


def _fault(name: str, wanted: Any, value: Any) -> str:
    """What a message says after the value of a field; empty if nothing is wrong with it."""
    if wanted is bool:
        return "" if type(value) is bool else " must be true or false"
    if wanted is str:
        return "" if type(value) is str and re.fullmatch(_NAME, value) else " must be a name"
    if wanted in (MLPKind, PositionRule):
        return "" if value in get_args(wanted) else f"; known: {', '.join(get_args(wanted))}"
    if wanted is float:
        if type(value) not in (int, float) or not abs(value) < math.inf:
            return " must be a number"
    elif wanted is int:
        if type(value) is not int:
            return " must be an integer"
    else:
        longest = MOST_MAPS if name in ("channels", "strides") else _MOST_STAGES
        if type(value) is not tuple or not 1 <= len(value) <= longest or any(type(number) is not int for number in value):
            return f" must be a list of 1 to {longest} integers"
    numbers = value if type(value) is tuple else (value,)
    least, most = _RANGES[name]
    if min(numbers) < least:
        return " must be positive" if least else " must not be negative"
    total = sum(numbers) if name in ("depths", "layers") else max(numbers)
    return f" is beyond every known network; at most {most}" if total > most else ""


def shown(value: object) -> str:
    """A value that a file gives, short and on one line, whatever it is."""
    plain = value is None or type(value) in (str, bool, int, float) or (type(value) is tuple and len(value) <= _MOST_STAGES)
    return one_line(repr(value), 80) if plain else f"something of type {type(value).__name__}"
