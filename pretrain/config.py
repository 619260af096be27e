"""A whole pretraining run, and how a recipe and the command line make one."""

from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

import jsonargparse

from common.command import config_parser
from pretrain.architecture import BackboneConfig
from pretrain.data.loader import DataConfig
from pretrain.data.views import ViewsConfig
from pretrain.objectives.dino import DINOConfig
from pretrain.objectives.moby import MoBYConfig
from pretrain.objectives.patch_matching import MatchingConfig
from pretrain.objectives.selfpatch import SelfPatchConfig
from pretrain.optim import OptimConfig
from pretrain.recipe_files import find_recipe, read_recipe, recipe_names
from pretrain.watching.config import WatchConfig


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
    device: Literal["auto", "cpu", "cuda"] = "auto"
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
        """Reject counts without meaning."""
        if self.epochs < 1 or self.batch_size < 1 or self.log_every < 1:
            raise ValueError("train.epochs, train.batch_size and train.log_every must be at least 1")
        if self.accumulate < 1 or self.batch_size % self.accumulate:
            raise ValueError(f"train.accumulate={self.accumulate} does not divide train.batch_size={self.batch_size}")
        if self.checkpoint_every < 0 or self.keep_every < 0:
            raise ValueError("train.checkpoint_every and train.keep_every must not be negative")
        if self.keep_last < 1:
            raise ValueError(f"train.keep_last={self.keep_last} must be at least 1, the checkpoint to continue from")


Method = Literal["dino", "moby", "selfpatch", "moby_selfpatch", "patch_matching"]


@dataclass(kw_only=True)
class PretrainConfig:
    """A pretraining run."""

    method: Method
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
    """Pictures, curves and k-NN while it goes on."""

    def __post_init__(self) -> None:
        """Reject options that would have no effect or do not fit each other."""
        self._refuse_idle_sections()
        for name in ("global_size", "local_size"):
            size = getattr(self.views, name)
            if size % self.backbone.stride and (name == "global_size" or self.views.local_crops):
                raise ValueError(
                    f"views.{name}={size} is not a multiple of {self.backbone.stride} pixels, the side of one position of the "
                    f"backbone's final map (backbone.patch_size={self.backbone.patch_size})"
                )
        if self.method == "patch_matching" and self.backbone.family != "vit":
            raise ValueError(f"patch_matching needs a CLS token: backbone.family={self.backbone.family} must be vit")
        if self.on_moby and self.views.local_crops:
            raise ValueError(
                f"MoBY has two global views and no local ones: views.local_crops={self.views.local_crops} must be 0"
            )
        if self.on_moby and self.optim.freeze_last_layer_epochs:
            raise ValueError(
                "MoBY's heads have no layer of prototypes to freeze: "
                f"optim.freeze_last_layer_epochs={self.optim.freeze_last_layer_epochs} must be 0"
            )
        if self.optim.warmup_epochs >= self.train.epochs:
            raise ValueError(
                f"optim.warmup_epochs={self.optim.warmup_epochs} leaves nothing of train.epochs={self.train.epochs}; lower it"
            )
        smallest_grid = (self.views.local_size if self.views.local_crops else self.views.global_size) // self.backbone.stride
        if self.with_selfpatch and self.selfpatch.window > smallest_grid:
            raise ValueError(
                f"selfpatch.window={self.selfpatch.window} is larger than the patch grid of the smallest crop, "
                f"{smallest_grid} patches wide"
            )

    @property
    def on_moby(self) -> bool:
        """Whether the image-level loss is MoBY's."""
        return self.method in ("moby", "moby_selfpatch")

    @property
    def with_selfpatch(self) -> bool:
        """Whether SelfPatch is on top."""
        return self.method in ("selfpatch", "moby_selfpatch")

    @property
    def patch_contrast(self) -> bool:
        """Whether SelfPatch's patches have heads of MoBY's kind."""
        return self.with_selfpatch and (self.on_moby or self.selfpatch.negatives)

    def _refuse_idle_sections(self) -> None:
        idle = {
            "dino": self.on_moby and self.dino != DINOConfig(),
            "moby": not (self.on_moby or self.patch_contrast) and self.moby != MoBYConfig(),
            "matching": self.method != "patch_matching" and self.matching != MatchingConfig(),
            "selfpatch": not self.with_selfpatch and self.selfpatch != SelfPatchConfig(),
        }
        if names := [name for name, given in idle.items() if given]:
            raise ValueError(f"options of `{names[0]}` have no effect with method: {self.method}")
        if self.patch_contrast and self.selfpatch.out_dim != SelfPatchConfig().out_dim:
            raise ValueError(
                f"selfpatch.out_dim={self.selfpatch.out_dim} has no effect on MoBY or with negatives; the width is moby.out_dim"
            )


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
    recipe = parser.parse_object(read_recipe(find_recipe(argv[0])))
    namespace = parser.parse_args(list(argv[1:]), namespace=recipe)
    return PretrainConfig(**parser.instantiate_classes(namespace).as_dict())


def _parser() -> jsonargparse.ArgumentParser:
    description = f"Pretrain a backbone. RECIPE is a YAML file or one of {', '.join(recipe_names())}; options override it."
    parser = config_parser("bash tools/pretrain.sh RECIPE", description)
    parser.usage = "%(prog)s [OPTION ...]"  # nothing is demanded that recipes leave out
    parser.add_class_arguments(PretrainConfig, as_group=False)
    return parser
