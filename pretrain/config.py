"""A whole pretraining run, and how a recipe and the command line make one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jsonargparse
import yaml

from common.command import config_parser
from pretrain.data.loader import DataConfig
from pretrain.data.views import ViewsConfig
from pretrain.objectives.dino import DINOConfig
from pretrain.objectives.selfpatch import SelfPatchConfig
from pretrain.optim import OptimConfig

RECIPES = Path(__file__).resolve().parent / "recipes"


@dataclass(kw_only=True)
class BackboneConfig:
    """The ViT to pretrain. Whether it has a CLS token and a final norm follows from the method."""

    embed_dim: int = 384
    """Width: 192 for ViT-Ti, 384 for ViT-S, 768 for ViT-B."""
    depth: int = 12
    """Number of blocks."""
    num_heads: int = 6
    """Attention heads: 3 for ViT-Ti, 6 for ViT-S, 12 for ViT-B."""
    patch_size: int = 16
    """Side of a patch in pixels."""
    drop_path_rate: float = 0.1
    """Stochastic depth of the student's last block, growing linearly from 0; the teacher has none."""

    def __post_init__(self) -> None:
        """Reject a rate that drops everything."""
        if not 0 <= self.drop_path_rate < 1:
            raise ValueError(f"backbone.drop_path_rate={self.drop_path_rate} must be in [0, 1)")

    def architecture(self) -> dict[str, int]:
        """What `Objective.backbone_spec` needs."""
        return {
            "embed_dim": self.embed_dim,
            "depth": self.depth,
            "num_heads": self.num_heads,
            "patch_size": self.patch_size,
        }


@dataclass(kw_only=True)
class TrainConfig:
    """Length, batch, hardware and bookkeeping."""

    output: Path = Path("runs/pretrain")
    """Folder for the checkpoint, the logs and the resolved config; a run that is there already is continued."""
    epochs: int = 200
    """Epochs in total."""
    batch_size: int = 1024
    """Images per step over all devices together."""
    seed: int = 0
    """Seed of the weights, the order of images, the views and stochastic depth."""
    device: Literal["auto", "cpu", "cuda"] = "auto"
    """`auto` takes this process's GPU where there is one, else the CPU."""
    precision: Literal["auto", "float32", "bfloat16"] = "auto"
    """Arithmetic of the networks; `auto` is bfloat16 on a GPU that has it, else float32. Losses are always float32. The authors' code
    uses float16 with loss scaling."""
    checkpoint_every: int = 0
    """Steps between writes of the checkpoint; 0 for once per epoch."""
    keep_every: int = 0
    """Keep a copy of the checkpoint every so many epochs; 0 for only the last one."""
    log_every: int = 10
    """Steps between lines of the log."""

    def __post_init__(self) -> None:
        """Reject counts without meaning."""
        if self.epochs < 1 or self.batch_size < 1 or self.log_every < 1:
            raise ValueError("train.epochs, train.batch_size and train.log_every must be at least 1")
        if self.checkpoint_every < 0 or self.keep_every < 0:
            raise ValueError("train.checkpoint_every and train.keep_every must not be negative")


@dataclass(kw_only=True)
class PretrainConfig:
    """A pretraining run."""

    method: Literal["dino", "selfpatch"]
    """`dino`: the CLS loss alone; `selfpatch`: SelfPatch on DINO."""
    data: DataConfig = field(default_factory=DataConfig)
    """Where images come from."""
    views: ViewsConfig = field(default_factory=ViewsConfig)
    """Crops."""
    backbone: BackboneConfig = field(default_factory=BackboneConfig)
    """The network."""
    dino: DINOConfig = field(default_factory=DINOConfig)
    """The image-level loss."""
    selfpatch: SelfPatchConfig = field(default_factory=SelfPatchConfig)
    """The patch-level loss; only with `method: selfpatch`."""
    optim: OptimConfig = field(default_factory=OptimConfig)
    """The optimiser."""
    train: TrainConfig = field(default_factory=TrainConfig)
    """The run."""

    def __post_init__(self) -> None:
        """Reject options that would have no effect or do not fit each other."""
        if self.method != "selfpatch" and self.selfpatch != SelfPatchConfig():
            raise ValueError(f"options of `selfpatch` have no effect with method: {self.method}")
        for name in ("global_size", "local_size"):
            size = getattr(self.views, name)
            if size % self.backbone.patch_size:
                raise ValueError(f"views.{name}={size} is not a multiple of backbone.patch_size={self.backbone.patch_size}")
        if self.optim.warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"optim.warmup_epochs={self.optim.warmup_epochs} leaves nothing of train.epochs={self.train.epochs}; lower it"
            )
        smallest_grid = self.views.local_size if self.views.local_crops else self.views.global_size
        if self.method == "selfpatch" and self.selfpatch.window > smallest_grid // self.backbone.patch_size:
            raise ValueError(
                f"selfpatch.window={self.selfpatch.window} is larger than the patch grid of the smallest crop, "
                f"{smallest_grid // self.backbone.patch_size} patches wide"
            )


def recipe_names() -> list[str]:
    """Names of the recipes that come with PatchBench."""
    return sorted(path.stem for path in RECIPES.glob("*.yaml"))


def find_recipe(name: str) -> Path:
    """The file of a recipe given by name or by path.

    Raises:
        ValueError: If there is neither; lists the names.
    """
    for candidate in (Path(name), RECIPES / f"{name}.yaml"):
        if candidate.is_file():
            return candidate
    raise ValueError(f"no recipe {name!r}; give a YAML file or one of {', '.join(recipe_names())}")


def parse_run(argv: Sequence[str]) -> PretrainConfig:
    """A run from `RECIPE [--section.field VALUE ...]`.

    Raises:
        ValueError: For an unknown recipe, field or value.
    """
    parser = _parser()
    if not argv or argv[0].startswith("-"):
        if any(argument in ("-h", "--help") for argument in argv):
            parser.print_help()
            raise SystemExit(0)
        raise ValueError(f"the first argument is a recipe: a YAML file or one of {', '.join(recipe_names())}")
    recipe = parser.parse_object(_read_yaml(find_recipe(argv[0])))
    namespace = parser.parse_args(list(argv[1:]), namespace=recipe)
    return PretrainConfig(**parser.instantiate_classes(namespace).as_dict())


def _parser() -> jsonargparse.ArgumentParser:
    description = f"Pretrain a backbone. RECIPE is a YAML file or one of {', '.join(recipe_names())}; options override it."
    parser = config_parser("bash tools/pretrain.sh RECIPE", description)
    parser.add_class_arguments(PretrainConfig)
    return parser


def _read_yaml(path: Path) -> dict[str, object]:
    try:
        content = yaml.safe_load(path.read_text(encoding="utf-8"))
    except (yaml.YAMLError, UnicodeDecodeError) as error:
        raise ValueError(f"{path}: not a YAML file ({error})") from error
    if not isinstance(content, dict):
        raise ValueError(f"{path}: not a recipe; it must map sections to fields")
    return content
