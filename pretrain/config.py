"""What a pretraining run can be told: one dataclass per section, and how recipes and options set them.

Nothing here loads torch, so that `--help` and a mistaken option are answered at once.
"""

import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.cli import as_arguments, parse
from pretrain.methods import METHODS, DINOConfig, MatchingConfig, Method, MethodName, MoBYConfig, SelfPatchConfig, at_least
from pretrain.recipe_files import find_recipe, read_recipe, recipe_names


@dataclass(kw_only=True)
class DataConfig:
    """Where images come from."""

    path: Path = Path("data/imagenet/train")
    """A folder of images, at any depth; a text file with the path of one on each line; COCO's annotations
    (`annotations/instances_train2017.json` for `train2017`); the folder of CIFAR's binary files; or uncompressed tar shards as
    webdataset writes them: a folder, or `shard-{000..012}.tar`."""
    kind: str = "auto"
    """What the path is, where it does not tell by itself: `folder`, `list` or another kind of docs/pretraining.md."""
    tar_index: Path = Path("runs/tar_index")
    """Folder where the places of the images in tar shards are kept once they have been read."""
    workers: int = 10
    """Processes per device that decode and augment; 0 to do it in the training process."""
    pin_workers: bool = False
    """Keep each worker on a core of its own, of those that the process may use. Only where nothing else runs there: two runs on one
    machine without cores of their own would choose the same ones."""
    max_unreadable: int = 10
    """How many distinct unreadable images each process skips (with their names) before the run stops."""

    def __post_init__(self) -> None:
        at_least("data", 0, workers=self.workers, max_unreadable=self.max_unreadable)
        if self.pin_workers and not self.workers:
            raise ValueError("data.pin_workers has no effect with data.workers=0")


@dataclass(kw_only=True)
class ViewsConfig:
    """Sizes and scales of the crops."""

    global_size: int = 224
    """Side of the two global crops in pixels."""
    global_scale: tuple[float, float] = (0.25, 1.0)
    """Smallest and largest area of a global crop, as a part of the image. DINO's own recipes use (0.4, 1)."""
    local_size: int = 96
    """Side of the local crops in pixels."""
    local_scale: tuple[float, float] = (0.05, 0.25)
    """Smallest and largest area of a local crop, as a part of the image. DINO's own recipes use (0.05, 0.4)."""
    local_crops: int = 8
    """Number of local crops."""
    shared_by: int = 0
    """How many images of a batch share all draws (boxes, flips, colours) after being resized to 256 x 256, as PW-Self's images of one
    GPU do; 0 for views of each image's own."""
    photometric_patch: int = 0
    """Side in pixels of patches that each change colours and sharpness by themselves (PW-Self's later branch); 0 for none."""
    on_device: bool = False
    """Change colours (jitter, greyscale, blur, solarisation) in the training process, on its device and for whole batches, instead of
    in the workers, which then only decode and crop. The draws are the same; pixels differ by a level or two of 255."""

    def __post_init__(self) -> None:
        for name in ("global_scale", "local_scale"):
            smallest, largest = getattr(self, name)
            if not 0 < smallest <= largest <= 1:
                raise ValueError(f"views.{name}={getattr(self, name)} must be ascending within (0, 1]")
        at_least("views", 1, global_size=self.global_size, local_size=self.local_size)
        at_least("views", 0, local_crops=self.local_crops, shared_by=self.shared_by, photometric_patch=self.photometric_patch)
        if self.on_device and self.photometric_patch:
            raise ValueError(
                "views.photometric_patch follows the other changes of colours, in the workers; leave out views.on_device"
            )
        sizes = [self.global_size, self.local_size] if self.local_crops else [self.global_size]
        if self.photometric_patch and any(size % self.photometric_patch for size in sizes):
            raise ValueError(f"views.photometric_patch={self.photometric_patch} does not divide the crops of {sizes} pixels")


@dataclass(kw_only=True)
class BackboneConfig:
    """The network to pretrain. Whether a ViT has a CLS token and a final norm follows from the method."""

    family: Literal["vit", "swin"] = "vit"
    """Vision transformer or Swin transformer."""
    embed_dim: int = 384
    """Width: 192 for ViT-Ti, 384 for ViT-S, 768 for ViT-B; of a Swin's first stage, 96 for Swin-T."""
    depth: int = 12
    """Number of blocks of a ViT."""
    num_heads: int = 6
    """Attention heads of a ViT: 3 for ViT-Ti, 6 for ViT-S, 12 for ViT-B."""
    patch_size: int = 16
    """Side of a patch in pixels; 4 for a Swin."""
    stage_depths: tuple[int, ...] = (2, 2, 6, 2)
    """Blocks per stage of a Swin."""
    stage_heads: tuple[int, ...] = (3, 6, 12, 24)
    """Attention heads per stage of a Swin."""
    window_size: int = 7
    """Side of a Swin's attention windows in tokens."""
    drop_path_rate: float = 0.1
    """Stochastic depth of the student's last block, growing linearly from 0; the teacher has none."""

    def __post_init__(self) -> None:
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"backbone.drop_path_rate={self.drop_path_rate} must be in [0, 1)")
        others = ("depth", "num_heads") if self.family == "swin" else ("stage_depths", "stage_heads", "window_size")
        for name in others:
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"backbone.{name}={getattr(self, name)} has no effect with backbone.family: {self.family}")

    @property
    def stride(self) -> int:
        """Pixels per side of one position of the final map."""
        return self.patch_size * 2 ** (len(self.stage_depths) - 1) if self.family == "swin" else self.patch_size

    def architecture(self) -> dict[str, Any]:
        """The fields of `ViTSpec` or `SwinSpec` that do not follow from the method or the crops."""
        common = {"family": self.family, "embed_dim": self.embed_dim, "patch_size": self.patch_size}
        if self.family == "swin":
            return common | {"depths": self.stage_depths, "num_heads": self.stage_heads, "window_size": self.window_size}
        return common | {"depth": self.depth, "num_heads": self.num_heads}


@dataclass(kw_only=True)
class OptimConfig:
    """AdamW and its schedules (facebookresearch/dino 7c446df)."""

    lr: float = 0.0005
    """Peak learning rate for a global batch of 256; scaled linearly with the batch."""
    min_lr: float = 1e-6
    """Learning rate at the end; not scaled."""
    warmup_epochs: int = 10
    """Epochs of linear warm-up of the learning rate from 0."""
    weight_decay: float = 0.04
    """Weight decay at the start; never on biases and other one-dimensional parameters."""
    weight_decay_end: float = 0.4
    """Weight decay at the end of its cosine."""
    clip_grad: float = 3.0
    """Largest gradient norm; 0 for no clipping."""
    clip_each: bool = True
    """Whether `clip_grad` bounds each parameter tensor by itself, as in DINO; otherwise all together, as in MoBY."""
    decay_positions: bool = True
    """Whether position embeddings, relative position biases and CLS tokens decay, as in DINO; not so in MoBY and Swin."""
    freeze_last_layer_epochs: int = 1
    """Epochs at the start in which the last layers of the projection heads do not move."""
    teacher_momentum: float = 0.996
    """Weight of the past in the teacher's moving average at the start; rises to 1 by a cosine."""

    def __post_init__(self) -> None:
        if self.lr <= 0:
            raise ValueError(f"optim.lr={self.lr} must be positive")
        at_least("optim", 0, min_lr=self.min_lr, weight_decay=self.weight_decay, weight_decay_end=self.weight_decay_end)
        at_least("optim", 0, clip_grad=self.clip_grad, warmup_epochs=self.warmup_epochs)
        at_least("optim", 0, freeze_last_layer_epochs=self.freeze_last_layer_epochs)
        if not 0 <= self.teacher_momentum <= 1:
            raise ValueError(f"optim.teacher_momentum={self.teacher_momentum} must be in [0, 1]")


@dataclass(kw_only=True)
class TrainConfig:
    """Length, batch, hardware and bookkeeping."""

    output: Path = Path("runs/pretrain")
    """Folder for the checkpoint, the logs and the resolved config."""
    resume: str = "auto"
    """`auto` continues the checkpoint in `train.output` if there is one; `never` refuses to; a checkpoint file is where a run starts
    whose `train.output` has none yet."""
    epochs: int = 200
    """Epochs in total."""
    batch_size: int = 1024
    """Images per step over all devices together."""
    accumulate: int = 1
    """Parts in which each device processes its share of the batch, one after another, to save memory; the batch and what it computes
    stay the same, up to rounding and stochastic depth. Not so with MoBY's heads, whose batch normalisation is over a part."""
    seed: int = 0
    """Seed of the weights, the order of images, the views and stochastic depth."""
    device: str = "auto"
    """`auto` takes this process's GPU where there is one, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; `auto` is bfloat16 on a GPU that has it, else float32. Losses are always float32. The authors' code
    uses float16 with loss scaling."""
    compile: bool = False
    """Compile the networks with `torch.compile`: minutes at the start, faster steps on a GPU."""
    checkpoint_every: int = 0
    """Steps between writes of the checkpoint; 0 for once per epoch."""
    keep_last: int = 2
    """How many of the newest checkpoints stay, the one to continue from included; an older one helps where that is damaged."""
    keep_every: int = 0
    """Besides, keep the checkpoint of every so many epochs for good; 0 for none."""
    export: bool = False
    """Write the backbones of teacher and student as files for evaluation when the run is complete."""
    log_every: int = 10
    """Steps between lines of the log; the last step of every epoch gets one, too."""

    def __post_init__(self) -> None:
        at_least("train", 1, epochs=self.epochs, batch_size=self.batch_size, accumulate=self.accumulate)
        at_least("train", 1, keep_last=self.keep_last, log_every=self.log_every)
        at_least("train", 0, checkpoint_every=self.checkpoint_every, keep_every=self.keep_every)
        if self.batch_size % self.accumulate:
            raise ValueError(f"train.accumulate={self.accumulate} does not divide train.batch_size={self.batch_size}")


@dataclass(kw_only=True)
class WatchConfig:
    """Looking at training; without influence on it."""

    every: int = 10
    """Epochs between plots, curves and k-NN, which also come after the last epoch; 0 for none of them."""
    images: Path | None = None
    """Folder whose first images are drawn; none: images from all over the training data."""
    num_images: int = 4
    """How many images are drawn."""
    knn_train: Path | None = None
    """Folder with a folder of images per class, the labelled neighbours of an online k-NN with the teacher's backbone; its features
    are held in memory by every process: for ImageNet take a part."""
    knn_val: Path | None = None
    """Folder with a folder of images per class: those that the k-NN classifies."""

    def __post_init__(self) -> None:
        at_least("watch", 0, every=self.every)
        at_least("watch", 1, num_images=self.num_images)
        if (self.knn_train is None) != (self.knn_val is None):
            raise ValueError("watch.knn_train and watch.knn_val come together: neighbours, and what they classify")
        idle = [name for name in ("images", "knn_train") if getattr(self, name) is not None]
        if not self.every and idle:
            raise ValueError(f"watch.{idle[0]} has no effect with watch.every: 0")


@dataclass(kw_only=True)
class PretrainConfig:
    """A pretraining run."""

    method: MethodName
    """`dino`, `moby`: an image-level loss alone; `selfpatch`: SelfPatch on DINO, as published; `moby_selfpatch`: on MoBY;
    `patch_matching`: PW-Self, on DINO."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where images come from."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Crops."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network."""
    dino: DINOConfig = field(default_factory=DINOConfig)
    """DINO's loss and heads."""
    moby: MoBYConfig = field(default_factory=MoBYConfig)
    """MoBY's loss and heads; also those of SelfPatch's patches on MoBY or with negatives."""
    selfpatch: SelfPatchConfig = field(default_factory=SelfPatchConfig)
    """The patch-level loss; only with SelfPatch."""
    matching: MatchingConfig = field(default_factory=MatchingConfig)
    """The loss of patch matching; only with it."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The run."""
    watch: WatchConfig = field(default_factory=WatchConfig)
    """Plots, curves and k-NN while it goes on."""

    @property
    def traits(self) -> Method:
        """The method's row of the table."""
        return METHODS[self.method]

    def reads(self, section: str) -> bool:
        """Whether the method reads a section of losses: `dino`, `moby`, `selfpatch` or `matching`."""
        return section in self.traits.sections or (section == "moby" and self.patch_contrast)

    @property
    def patch_contrast(self) -> bool:
        """Whether SelfPatch's patches have heads and loss of MoBY's kind: on MoBY, and on DINO with negatives."""
        return "selfpatch" in self.traits.sections and ("moby" in self.traits.sections or self.selfpatch.negatives)

    def __post_init__(self) -> None:
        for section in ("dino", "matching", "moby", "selfpatch"):
            given = getattr(self, section)
            if given != type(given)() and not self.reads(section):
                raise ValueError(f"options of `{section}` have no effect with method: {self.method}")
        if self.patch_contrast and self.selfpatch.out_dim != SelfPatchConfig.out_dim:
            raise ValueError(
                f"selfpatch.out_dim={self.selfpatch.out_dim} has no effect on MoBY or with negatives; the width is moby.out_dim"
            )
        traits, views, family, stride = self.traits, self.views, self.backbone.family, self.backbone.stride
        if family not in traits.families:
            raise ValueError(
                f"{self.method} needs a CLS token: backbone.family={family} must be {' or '.join(traits.families)}"
            )
        if views.local_crops and not traits.local_crops:
            raise ValueError(
                f"{self.method} has two global views and no local ones: views.local_crops={views.local_crops} must be 0"
            )
        if (frozen := self.optim.freeze_last_layer_epochs) and not traits.prototypes:
            raise ValueError(
                f"{self.method}'s heads have no layer of prototypes to freeze: optim.freeze_last_layer_epochs={frozen} must be 0"
            )
        if self.optim.warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"optim.warmup_epochs={self.optim.warmup_epochs} leaves nothing of train.epochs={self.train.epochs}; lower it"
            )
        sizes = {"global_size": views.global_size} | ({"local_size": views.local_size} if views.local_crops else {})
        for name, size in sizes.items():
            if size % stride:
                raise ValueError(
                    f"views.{name}={size} is not a multiple of {stride} pixels, the side of one position of the "
                    f"backbone's final map (backbone.patch_size={self.backbone.patch_size})"
                )
            if self.reads("selfpatch") and self.selfpatch.window > size // stride:
                raise ValueError(
                    f"selfpatch.window={self.selfpatch.window} is larger than the patch grid of views.{name}={size}, "
                    f"{size // stride} patches wide"
                )


def plain_config(config: PretrainConfig) -> dict[str, Any]:
    """The configuration as YAML has it: sections of plain values, which a recipe may hold."""
    plain: dict[str, Any] = json.loads(json.dumps(asdict(config), default=str))
    return plain


def parse_run(argv: Sequence[str]) -> PretrainConfig:
    """A run from `RECIPE [--section.field VALUE ...]`."""
    names = ", ".join(recipe_names())
    command = "bash tools/pretrain.sh RECIPE"
    description = f"Pretrain a backbone. RECIPE is a YAML file or one of {names}; options override it."
    if not argv or argv[0].startswith("-"):
        if any(argument in ("-h", "--help") for argument in argv):
            parse(PretrainConfig, ["--help"], command, description)
        raise ValueError(f"the first argument is a recipe: a YAML file or one of {names}")
    recipe = read_recipe(find_recipe(argv[0]))
    return parse(PretrainConfig, [*as_arguments(recipe), *argv[1:]], command, description)
