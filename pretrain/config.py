"""What a pretraining run can be told: one dataclass per section, and how recipes and options set them.

A recipe is a YAML file of a few lines. `extends: NAME` or `extends: [NAME, NAME]` takes the sections of other recipes first, in this
order; the file's own fields win. A name is a file beside the extending one or in its folder `base`, or a recipe of ours.

Nothing here loads torch, so that `--help` and a mistaken option are answered at once.
"""

import itertools
import json
import os
import re
from collections.abc import Sequence
from dataclasses import asdict, dataclass, field, fields
from pathlib import Path
from typing import Any, Literal

from common.cli import as_arguments, expanded, parse
from common.strict import parse_yaml
from pretrain.methods import (
    METHODS,
    Count,
    Device,
    LossSections,
    Method,
    MethodName,
    NotNegative,
    Part,
    Positive,
    ProperPart,
    Section,
    Seed,
    SelfPatchConfig,
    Size,
    Sizes,
)

Interpolation = Literal["bicubic", "bilinear"]

RECIPES = Path(__file__).resolve().parent / "recipes"


@dataclass(kw_only=True)
class DataConfig(Section):
    """Where images come from."""

    path: Path = Path("data/imagenet/train")
    """A folder of images, a list of paths, COCO's annotations, CIFAR's folder, or tar shards (see docs/pretraining.md)."""
    kind: Literal["auto", "folder", "list", "coco", "cifar", "tar"] = "auto"  # What the path is, where that cannot be seen.
    tar_index: Path = Path("runs/tar_index")  # Folder for the places of the images in tar shards, which are read once.
    workers: Count = 10  # Processes per device that decode and augment; 0 to do it in the training process.
    pin_workers: bool = False  # Keep each worker on a core of its own; not beside a second run on the machine.
    max_unreadable: Count = 10  # Distinct unreadable images that each process skips, by name, before the run stops.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.pin_workers and not self.workers:
            raise ValueError("data.pin_workers has no effect with data.workers=0")


@dataclass(kw_only=True)
class ViewsConfig(Section):
    """Sizes and scales of the crops."""

    global_size: Size = 224  # Side of the two global crops in pixels.
    global_scale: tuple[float, float] = (0.25, 1.0)
    """Smallest and largest area of a global crop, as a part of the image. DINO's own recipes use (0.4, 1)."""
    local_size: Size = 96  # Side of the local crops in pixels.
    local_scale: tuple[float, float] = (0.05, 0.25)
    """Smallest and largest area of a local crop, as a part of the image. DINO's own recipes use (0.05, 0.4)."""
    local_crops: Count = 8  # Number of local crops.
    interpolation: Interpolation = "bicubic"  # How crops are resized; `bilinear`: MoBY and VISSL.
    saturation: Part = 0.2  # Largest change of the saturation, as a part; VISSL has 0.4.
    shared_by: Count = 0
    """How many images of a batch, resized to 256 x 256, share all draws (PW-Self's main branch: those of one GPU); 0 for none."""
    photometric_patch: Count = 0
    """Side in pixels of patches that each change colours and sharpness by themselves (PW-Self's later branch); 0 for none."""
    on_device: bool = False
    """Change colours on the training device instead of in the workers: the same draws; pixels differ by a level or two of 255."""

    def __post_init__(self) -> None:
        super().__post_init__()
        for name, (smallest, largest) in {"global_scale": self.global_scale, "local_scale": self.local_scale}.items():
            if not 0 < smallest <= largest <= 1:
                raise ValueError(f"views.{name}={(smallest, largest)} must be ascending within (0, 1]")
        if self.on_device and self.photometric_patch:
            raise ValueError("views.photometric_patch follows the workers' changes of colours; leave out views.on_device")
        sizes = list(self.sizes().values())
        if self.photometric_patch and any(size % self.photometric_patch for size in sizes):
            raise ValueError(f"views.photometric_patch={self.photometric_patch} does not divide the crops of {sizes} pixels")

    def sizes(self) -> dict[str, int]:
        """Sides of the crops by option; local ones only where there are any."""
        return {"global_size": self.global_size} | ({"local_size": self.local_size} if self.local_crops else {})


@dataclass(kw_only=True)
class BackboneConfig(Section):
    """The network to pretrain; whether a ViT has a CLS token and a final norm follows from the method."""

    family: Literal["vit", "swin"] = "vit"  # Vision transformer or Swin transformer.
    embed_dim: Size = 384
    """Width: 192 for ViT-Ti, 384 for ViT-S, 768 for ViT-B; of a Swin's first stage, 96 for Swin-T."""
    depth: Size = 12  # Number of blocks of a ViT.
    num_heads: Size = 6  # Attention heads of a ViT: 3 for ViT-Ti, 6 for ViT-S, 12 for ViT-B.
    patch_size: Size = 16  # Side of a patch in pixels; 4 for a Swin.
    stage_depths: Sizes = (2, 2, 6, 2)  # Blocks per stage of a Swin.
    stage_heads: Sizes = (3, 6, 12, 24)  # Attention heads per stage of a Swin.
    window_size: Size = 7  # Side of a Swin's attention windows in tokens.
    drop_path_rate: ProperPart = 0.1  # Stochastic depth of the student's last block, linear from 0; the teacher has none.

    def __post_init__(self) -> None:
        super().__post_init__()
        others = ("depth", "num_heads") if self.family == "swin" else ("stage_depths", "stage_heads", "window_size")
        for name in others:
            if getattr(self, name) != getattr(type(self), name):
                raise ValueError(f"backbone.{name}={getattr(self, name)} has no effect with backbone.family: {self.family}")

    @property
    def stride(self) -> int:
        """Pixels per side of one position of the final map."""
        return self.patch_size * 2 ** (len(self.stage_depths) - 1) if self.family == "swin" else self.patch_size


@dataclass(kw_only=True)
class OptimConfig(Section):
    """AdamW and its schedules (facebookresearch/dino 7c446df)."""

    lr: Positive = 0.0005  # Peak learning rate for a global batch of 256; scaled linearly with the batch.
    min_lr: NotNegative = 1e-6  # Learning rate at the end.
    start_lr: NotNegative = 0.0  # Learning rate at the start of the warm-up.
    scale_ends: bool = False  # Whether `min_lr` and `start_lr` are scaled with the batch as `lr` is (MoBY).
    warmup_epochs: Count = 10  # Epochs of linear warm-up of the learning rate.
    update_every: Literal["step", "epoch"] = "step"  # When rate and weight decay change; `epoch`: VISSL.
    weight_decay: NotNegative = 0.04  # Weight decay at the start; never on biases and other vectors.
    weight_decay_end: NotNegative = 0.4  # Weight decay at the end of its cosine.
    clip_grad: NotNegative = 3.0  # Largest gradient norm; 0 for no clipping.
    clip_each: bool = True  # Whether `clip_grad` bounds each tensor by itself (DINO), or all together (MoBY).
    decay_positions: bool = True  # Whether position embeddings, position biases and CLS tokens decay, as published.
    freeze_last_layer_epochs: Count = 1  # First epochs in which the last layers of the projection heads do not move.
    teacher_momentum: Part = 0.996  # Weight of the past in the teacher's moving average at the start; it rises to 1.


@dataclass(kw_only=True)
class TrainConfig(Section):
    """Length, batch, hardware and bookkeeping."""

    output: Path = Path("runs/pretrain")  # Folder for the checkpoint, the logs and the resolved config.
    resume: str = "auto"
    """`auto` continues the checkpoint in `train.output`, if any; `never` refuses to; from a checkpoint file a new run starts."""
    epochs: Size = 200  # Epochs in total.
    batch_size: Size = 1024  # Images per step over all devices together.
    accumulate: Size = 1
    """Parts in which each device processes its share of the batch, one after another, to save memory; the batch and what it computes
    stay the same, up to rounding and stochastic depth. Not so with MoBY's heads, whose batch normalisation is over a part."""
    seed: Seed = 0  # Seed of the weights, the order of images, the views and stochastic depth.
    device: Device = "auto"  # `auto` takes this process's GPU where there is one, else the CPU.
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks, though never of losses; `auto` is bfloat16 on a GPU that has it, else float32."""
    compile: bool = False  # Compile the networks with `torch.compile`: minutes at the start, faster steps on a GPU.
    checkpoint_every: Count = 0  # Steps between writes of the checkpoint; 0 for once per epoch.
    keep_last: Size = 2
    """How many of the newest checkpoints stay, the one to continue from included; an older one helps where that is damaged."""
    keep_every: Count = 0  # Besides, keep the checkpoint of every so many epochs for good; 0 for none.
    export: bool = False  # Write the backbones of teacher and student for evaluation when the run is complete.
    log_every: Size = 10  # Steps between lines of the log; the last step of every epoch gets one, too.
    recipe: str = ""  # Name of the recipe, which results on the checkpoint state; the command knows it from its first argument.


@dataclass(kw_only=True)
class WatchConfig(Section):
    """Plots, curves and k-NN while the run goes on; without influence on it."""

    every: Count = 10
    """Epochs between plots, curves and k-NN, which also come after the last epoch; 0 for none of them."""
    images: Path | None = None  # Folder whose first images are drawn; none: from all over the training data.
    num_images: Size = 4  # How many images are drawn.
    knn_train: Path | None = None
    """Folder with a folder of images per class: the neighbours of an online k-NN, whose features every process holds in memory."""
    knn_val: Path | None = None  # Folder with a folder of images per class: those that the k-NN classifies.

    def __post_init__(self) -> None:
        super().__post_init__()
        if (self.knn_train is None) != (self.knn_val is None):
            raise ValueError("watch.knn_train and watch.knn_val come together: neighbours, and what they classify")
        if self.knn_train and self.knn_val and self.knn_train.resolve() == self.knn_val.resolve():
            raise ValueError(f"watch.knn_val: {self.knn_val} is watch.knn_train: each image would be its own neighbour")
        for name in ("images", "knn_train"):
            if not self.every and getattr(self, name) is not None:
                raise ValueError(f"watch.{name} has no effect with watch.every: 0")


@dataclass(kw_only=True)
class PretrainConfig(LossSections):
    """A pretraining run."""

    method: MethodName
    """`dino`, `moby`: an image-level loss alone; `selfpatch`: SelfPatch on DINO, as published; `moby_selfpatch`: on MoBY;
    `patch_matching`: PW-Self, on DINO."""
    data: DataConfig = field(default_factory=DataConfig)
    views: ViewsConfig = field(default_factory=ViewsConfig)
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    optim: OptimConfig = field(default_factory=OptimConfig)
    train: TrainConfig = field(default_factory=TrainConfig)
    watch: WatchConfig = field(default_factory=WatchConfig)

    @property
    def traits(self) -> Method:
        return METHODS[self.method]

    def reads(self, section: str) -> bool:
        """Whether the method reads a section of losses: `dino`, `moby`, `selfpatch` or `matching`."""
        return section in self.traits.sections or (section == "moby" and self.patch_contrast)

    @property
    def patch_contrast(self) -> bool:
        """Whether SelfPatch's patches have heads and loss of MoBY's kind: on MoBY, and on DINO with negatives."""
        return "selfpatch" in self.traits.sections and ("moby" in self.traits.sections or self.selfpatch.negatives)

    def __post_init__(self) -> None:
        method, traits, family, stride = self.method, self.traits, self.backbone.family, self.backbone.stride
        for section in fields(LossSections):
            given = getattr(self, section.name)
            if given != type(given)() and not self.reads(section.name):
                raise ValueError(f"options of `{section.name}` have no effect with method: {method}")
        if self.patch_contrast and (width := self.selfpatch.out_dim) != SelfPatchConfig.out_dim:
            raise ValueError(f"selfpatch.out_dim={width} has no effect on MoBY or with negatives; the width is moby.out_dim")
        if family not in traits.families:
            raise ValueError(f"{method} needs a CLS token: backbone.family={family} must be {' or '.join(traits.families)}")
        if (crops := self.views.local_crops) and not traits.local_crops:
            raise ValueError(f"{method} has two global views and no local ones: views.local_crops={crops} must be 0")
        if (frozen := self.optim.freeze_last_layer_epochs) and not traits.prototypes:
            raise ValueError(f"{method} has no prototypes to freeze: optim.freeze_last_layer_epochs={frozen} must be 0")
        if (warmup := self.optim.warmup_epochs) >= self.train.epochs:
            raise ValueError(f"optim.warmup_epochs={warmup} leaves nothing of train.epochs={self.train.epochs}; lower it")
        if (batch := self.train.batch_size) % (parts := self.train.accumulate):
            raise ValueError(f"train.accumulate={parts} does not divide train.batch_size={batch}")
        if self.matching.loss == "sum" and not self.views.shared_by:
            raise ValueError("matching.loss: sum is over the images that share their draws; views.shared_by=0 must be positive")
        for name, size in self.views.sizes().items():
            if size % stride:
                what = f"the side of one position of the backbone's final map (backbone.patch_size={self.backbone.patch_size})"
                raise ValueError(f"views.{name}={size} is not a multiple of {stride} pixels, {what}")
            if self.reads("selfpatch") and (window := self.selfpatch.window) > (side := size // stride):
                raise ValueError(f"selfpatch.window={window} exceeds the grid of views.{name}={size}, {side} patches wide")


def plain_config(config: PretrainConfig) -> dict[str, Any]:
    """The configuration as YAML has it: sections of plain values, which a recipe may hold."""
    return {"method": config.method, **json.loads(json.dumps(asdict(config), default=str))}


def parse_run(argv: Sequence[str]) -> PretrainConfig:
    """A run from `RECIPE [--section.field VALUE ...]`."""
    command, recipes = "bash tools/pretrain.sh RECIPE", f"a YAML file or one of {', '.join(recipe_names())}"
    description = f"Pretrain a backbone. RECIPE is {recipes}; options override it."
    if not argv or argv[0].startswith("-"):
        if "-h" in argv or "--help" in argv:
            parse(PretrainConfig, ["--help"], command, description)
        raise ValueError(f"the first argument is a recipe: {recipes}")
    candidates = [path for path in (Path(expanded(argv[0], "the recipe")), RECIPES / f"{argv[0]}.yaml") if path.is_file()]
    if not candidates:
        raise ValueError(f"no recipe {argv[0]!r}; give {recipes}")
    # The resolved configuration of a run names the recipe that it came from, and so comes second.
    arguments = [f"--train.recipe={candidates[0].stem}", *as_arguments(read_recipe(candidates[0])), *argv[1:]]
    return parse(PretrainConfig, arguments, command, description)


def parse_run_here(argv: Sequence[str]) -> PretrainConfig:
    """`parse_run` for this machine: ValueError if a path to read from is mistaken, told without the seconds that torch takes."""
    config = parse_run(argv)
    watch = config.watch
    paths = {"data.path": config.data.path, "watch.images": watch.images}
    paths |= {"watch.knn_train": watch.knn_train, "watch.knn_val": watch.knn_val}
    for option, path in paths.items():
        is_pattern = option == "data.path" and "{" in str(path)
        if path is not None and not is_pattern and not path.exists():
            raise ValueError(f"{option}: {path} does not exist{'' if path.is_absolute() else f' in {Path.cwd()}'}")
    return config


def recipe_names() -> list[str]:
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def _read_sections(path: Path) -> dict[str, Any]:
    """What a recipe itself says; a ValueError names the file of one that says nothing, or two things."""
    try:
        content = parse_yaml(path.read_text(encoding="utf-8-sig"))
    except ValueError as error:
        raise ValueError(f"{path}: not a recipe in YAML: {error}") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a recipe; it must map sections to fields")
    for section, value in content.items():
        if value is None or (section not in ("method", "extends") and not isinstance(value, dict)):
            found = "nothing" if value is None else repr(value)
            raise ValueError(f"{path}: {section}: is {found}; give it fields or a value, or remove it")
        for field_name, text in value.items() if isinstance(value, dict) else ():
            if isinstance(text, str):
                value[field_name] = _with_variables(text, f"{path}: {section}.{field_name}")
    return content


def _with_variables(text: str, place: str) -> str:
    """A recipe's text with the values of environment variables in place of `$NAME` and `${NAME}`, as a shell has it."""
    whole = os.path.expandvars(text)
    if unset := re.search(r"\$(\w+|\{\w+\})", whole):
        raise ValueError(f"{place}: the environment variable of {unset[0]} is not set")
    return whole


def read_recipe(path: Path, extended_by: tuple[Path, ...] = ()) -> dict[str, Any]:
    """A recipe's sections, with those that it extends; `extended_by` are the files that led to this one."""
    if path.resolve() in extended_by:
        raise ValueError(f"{path}: extends itself, by way of {extended_by[-1]}")
    content = _read_sections(path)
    names = content.pop("extends", [])
    names = [names] if isinstance(names, str) else names
    if not isinstance(names, list) or not all(isinstance(name, str) for name in names):
        raise ValueError(f"{path}: extends: must be the name of a recipe or a list of names, not {names!r}")
    layers: list[dict[str, Any]] = []
    folders = (path.parent, path.parent / "base", RECIPES, RECIPES / "base")
    for name in names:
        files = [folder / f"{name.removesuffix('.yaml')}.yaml" for folder in folders]
        base = next((file for file in files if file.is_file() and file.resolve() != path.resolve()), None)
        if base is None:
            raise ValueError(f"{path}: extends {name!r}, and there is no {name}.yaml in {', '.join(map(str, folders))}")
        layers.append(read_recipe(base, (*extended_by, path.resolve())))
    merged: dict[str, Any] = {}
    for section, value in itertools.chain(*(layer.items() for layer in (*layers, content))):
        lower = merged.get(section)
        merged[section] = lower | value if isinstance(lower, dict) and isinstance(value, dict) else value
    return merged
