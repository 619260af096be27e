"""The pretraining methods: the sections of a run's configuration that set their losses, and the table of what tells them apart.

Nothing here loads torch.
"""

import math
import re
from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Literal, get_type_hints

Border = Literal["wrap", "clamp"]

ALL_PATCHES = 0  # The window size that stands for every other patch of the image.

RANGES: dict[str, Callable[[Any], object]] = {
    "at least 0": lambda value: 0 <= value < math.inf,
    "at least 1": lambda value: 1 <= value < math.inf,
    "positive": lambda value: 0 < value < math.inf,
    "in [0, 2^32)": lambda value: 0 <= value < 2**32,
    "in [0, 1]": lambda value: 0 <= value <= 1,
    "in [0, 1)": lambda value: 0 <= value < 1,
    "at least 1 each": lambda values: min(values, default=0) >= 1,
    "auto, cpu, cuda or cuda:N": re.compile("auto|cpu|cuda(:[0-9]+)?").fullmatch,
}
Count = Annotated[int, "at least 0"]
Size = Annotated[int, "at least 1"]
Seed = Annotated[int, "in [0, 2^32)"]
NotNegative = Annotated[float, "at least 0"]
Positive = Annotated[float, "positive"]
Part = Annotated[float, "in [0, 1]"]
ProperPart = Annotated[float, "in [0, 1)"]
Sizes = Annotated[tuple[int, ...], "at least 1 each"]
Device = Annotated[str, "auto, cpu, cuda or cuda:N"]


class Section:
    """A section of the configuration, such as `dino` of `DINOConfig`; refuses values outside the range that a field's type names."""

    def __post_init__(self) -> None:
        for name, hint in get_type_hints(type(self), include_extras=True).items():
            for allowed in getattr(hint, "__metadata__", ()):
                if not RANGES[allowed](value := getattr(self, name)):
                    section = type(self).__name__.removesuffix("Config").lower()
                    raise ValueError(f"{section}.{name}={value} must be {allowed}")


@dataclass(kw_only=True)
class DINOConfig(Section):
    """DINO's loss and heads."""

    out_dim: Size = 65536  # Number of prototypes of the CLS head.
    hidden_dim: Size = 2048  # Width of the hidden layers of every projection head.
    bottleneck_dim: Size = 256  # Width of the normalised embedding in every projection head.
    norm_last_layer: bool = True  # Keep every prototype at length 1, DINO's advice for small backbones; VISSL: False.
    student_temperature: Positive = 0.1  # Sharpening of the student's probabilities, CLS and patches.
    teacher_temperature: Positive = 0.04  # Sharpening of the teacher's probabilities after the warm-up.
    warmup_teacher_temperature: Positive = 0.04  # Sharpening of the teacher's probabilities in the first epoch.
    warmup_teacher_temperature_epochs: Count = 0  # Epochs over which the teacher's temperature rises linearly.
    centre_momentum: ProperPart = 0.9  # Weight of the past in the running centres.


@dataclass(kw_only=True)
class MoBYConfig(Section):
    """MoBY's loss and heads; also those of SelfPatch's patches on MoBY or with negatives."""

    hidden_dim: Size = 4096  # Width of the hidden layer of projector and predictor.
    out_dim: Size = 256  # Width of the embedding.
    temperature: Positive = 0.2  # Divides the cosines of the contrastive loss.
    queue: Size = 4096  # Embeddings of past batches that serve as negatives, for each view, and for patches.


@dataclass(kw_only=True)
class SelfPatchConfig(Section):
    """SelfPatch's patch-level loss; only with SelfPatch."""

    out_dim: Size = 4096
    """Number of prototypes of the patch head on DINO without negatives; heads of MoBY's kind have `moby.out_dim` channels."""
    window: int = 3  # Odd side of the neighbourhood of a patch's candidates; 0 for all patches of the image.
    k: Size = 4  # Candidates that are selected as positives, the most similar ones.
    border: Border = "wrap"
    """Neighbourhoods at the image border: `wrap` goes round to the other side, as published; `clamp` stays inside the image."""
    aggregation: Literal["attention", "average"] = "attention"
    """How positives become a target: by the class-attention blocks, or their mean, normed (the ablation without aggregation)."""
    negatives: bool = False
    """Contrast targets with past ones of other images (`moby.queue`); on DINO this replaces the cross-entropy over prototypes."""
    weight: NotNegative = 0.1  # Weight of the patch loss beside the image-level loss.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.window == ALL_PATCHES:
            return
        if self.window < 3 or self.window % 2 == 0:
            raise ValueError(f"selfpatch.window={self.window} must be odd and at least 3, or {ALL_PATCHES} for all patches")
        if self.k > self.window**2 - 1:
            raise ValueError(f"selfpatch.k={self.k} exceeds the {self.window**2 - 1} candidates of window={self.window}")


@dataclass(kw_only=True)
class MatchingConfig(Section):
    """How patch matching weighs CLS tokens and matched patches; only with patch matching."""

    loss: Literal["joint", "weighted", "sum"] = "joint"
    """`joint`: the mean over the CLS token and all matched patches (main branch); `weighted`: `cls_weight` times the CLS term plus
    `1 - cls_weight` times the mean over matched patches (branch QCRI_Cifar10); `sum`: likewise with the sum over matched patches, and
    summed over the images of a device (branch QCRI_ImageNet_same_batch_augmentation)."""
    cls_weight: Part = 0.9
    """Weight of the CLS term with `loss: weighted` or `sum`: 0.9 in the authors' branch QCRI_Cifar10, 0.8 in that with the sum."""

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.loss == "joint" and self.cls_weight != type(self).cls_weight:
            raise ValueError(f"matching.cls_weight={self.cls_weight} has no effect with matching.loss: joint")


@dataclass(kw_only=True)
class LossSections:
    """The sections of a run's configuration that set losses; options of those that its method does not read are refused."""

    dino: DINOConfig = field(default_factory=DINOConfig)
    moby: MoBYConfig = field(default_factory=MoBYConfig)
    selfpatch: SelfPatchConfig = field(default_factory=SelfPatchConfig)
    matching: MatchingConfig = field(default_factory=MatchingConfig)


# To add a method: its name, its section of losses above, if it has one of its own, and its line in METHODS.
MethodName = Literal["dino", "moby", "selfpatch", "moby_selfpatch", "patch_matching"]


@dataclass(frozen=True, kw_only=True)
class Method:
    """What tells a pretraining method from the others; everything else reads this instead of the method's name."""

    objective: str  # `module:class` in `pretrain.objectives`, made from a `PretrainConfig`: see `Objective` in `base`
    sections: tuple[str, ...]  # those of losses that the method reads; options of the others are refused
    class_token: bool = True  # whether a ViT has a CLS token and a final norm; a Swin never has the one and always the other
    families: tuple[str, ...] = ("vit", "swin")  # backbones that the method can train
    branch: Literal["teacher", "student"] = "teacher"  # the network that the method's authors evaluate
    prototypes: bool = True  # heads end in them, which can be frozen; without, heads normalise over the batch or parts of it
    local_crops: bool = True  # whether the loss takes them


_DINO = Method(objective="dino:DINO", sections=("dino",))
# MoBY's authors evaluate the online encoder (`encoder.` in their checkpoints), which is the student here.
_MOBY = Method(objective="moby:MoBY", sections=("moby",), branch="student", prototypes=False, local_crops=False)

METHODS: dict[MethodName, Method] = {
    "dino": _DINO,
    "moby": _MOBY,
    "selfpatch": replace(_DINO, objective="selfpatch:SelfPatch", sections=("dino", "selfpatch"), class_token=False),
    "moby_selfpatch": replace(_MOBY, objective="selfpatch:SelfPatch", sections=("moby", "selfpatch"), class_token=False),
    "patch_matching": replace(
        _DINO, objective="patch_matching:PatchMatching", sections=("dino", "matching"), families=("vit",)
    ),
}
