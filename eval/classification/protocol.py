"""The protocol of classification: which outputs of a backbone stand for an image, the settings, and what departs from DINO's."""

from dataclasses import dataclass
from typing import Any

from backbones.spec import BackboneSpec, ForeignSpec, PlainViTSpec
from eval.classification.config import ClassificationConfig
from eval.record import unpublished
from eval.result import Protocol
from eval.tasks import BENCHMARKS

PROTOCOL_VERSION = 2  # grows whenever a change can change a metric

# The published metrics take the last four blocks of ViT-S (384 wide) and, with mean patches, the last one of ViT-B (768).
# DINO's tiny and small models are narrower than this, base and larger ones not.
_BASE_WIDTH = 768

_AUGMENTED = "random resized crop and flip in every epoch"
_STORED = "features of centre crops, extracted once"

_SETTINGS = {"knn": ("neighbours", "temperature"), "linear": ("learning_rates", "epochs", "batch_size")}
_COMPARED = ("resize", "crop", "temperature", "epochs", "batch_size")


@dataclass(frozen=True, kw_only=True)
class Representation:
    """The two feature vectors of an image.

    k-NN's is the CLS token after the final norm, or, where the backbone has none, the mean of the patches. The probe's is this token
    of the last `blocks` blocks, each after the final norm, the last block's last; and with `mean_patch` also the mean of the last
    block's patches.
    """

    class_token: bool
    blocks: int
    mean_patch: bool
    pooled: bool = (
        False  # Of a network that is none of ours: what it hands to its classifier, else its CLS token, else the mean.
    )

    def describe(self) -> dict[str, str]:
        if self.pooled:
            return dict.fromkeys(
                ("knn", "linear"), "the network's own pooled features, or CLS token, or the mean of its last map"
            )
        token = "CLS token" if self.class_token else "mean of the patches or positions (the backbone has no CLS token)"
        blocks = f"last {self.blocks} blocks concatenated" if self.blocks > 1 else "last block"
        mean_patch = ", and mean patch of the last block" if self.mean_patch else ""
        return {"knn": f"{token}, last block", "linear": f"{token}, {blocks}{mean_patch}"}


def published_representation(spec: BackboneSpec) -> Representation:
    """What DINO's evaluation takes of such a backbone.

    ViT-S and narrower: CLS tokens of the last four blocks; ViT-B and wider: CLS token and mean patch of the last one.
    Without CLS token (SelfPatch's ViT, Swin, ResNet): the pooled last map, as DINO does for networks other than ViTs.
    """
    if isinstance(spec, ForeignSpec):
        return Representation(class_token=False, blocks=1, mean_patch=False, pooled=True)
    if not (isinstance(spec, PlainViTSpec) and spec.class_token):
        return Representation(class_token=False, blocks=1, mean_patch=False)
    wide = spec.embed_dim >= _BASE_WIDTH
    return Representation(class_token=True, blocks=1 if wide else 4, mean_patch=wide)


def choose_representation(spec: BackboneSpec, blocks: int | None, mean_patch: bool | None) -> Representation:
    """The published representation with what the user wants otherwise, refused where the backbone does not have it.

    A ViT with fewer than four blocks gives all that it has.
    """
    published = published_representation(spec)
    chosen = Representation(
        class_token=published.class_token,
        blocks=min(published.blocks, spec.num_blocks) if blocks is None else blocks,
        mean_patch=published.mean_patch if mean_patch is None else mean_patch,
        pooled=published.pooled,
    )
    if chosen.blocks > spec.num_blocks:
        raise ValueError(f"linear_blocks={blocks}: this backbone has {spec.num_blocks} blocks")
    if chosen.blocks > 1 and not isinstance(spec, PlainViTSpec):
        raise ValueError(f"linear_blocks={blocks}: only a ViT's blocks have features of one width; a {spec.family} takes 1")
    if chosen.mean_patch and not chosen.class_token:
        raise ValueError("linear_mean_patch: the backbone has no CLS token, so the mean patch is what the probe sees already")
    return chosen


def protocol_of(config: ClassificationConfig, spec: BackboneSpec) -> Protocol:
    """Settings as used on a backbone, and deviations from DINO's evaluation.

    More classifiers, neighbours or learning rates than the published ones add metrics and change none. A backbone without a CLS token
    is represented as DINO represents networks that have none, which the settings say.
    """
    published = published_representation(spec)
    chosen = choose_representation(spec, config.linear_blocks, config.linear_mean_patch)
    defaults = ClassificationConfig(backbone=config.backbone, data=config.data, output=config.output)
    names = ["classifiers", "resize", "crop", *(name for kind in config.classifiers for name in _SETTINGS[kind])]
    settings: dict[str, Any] = {name: getattr(config, name) for name in names}
    settings |= {f"{kind}_features": chosen.describe()[kind] for kind in config.classifiers}
    pairs = {name: [getattr(defaults, name), settings[name]] for name in names if name in _COMPARED}
    if "linear" in config.classifiers:
        compared: dict[str, list[Any]] = {
            "linear_blocks": [published.blocks, chosen.blocks],
            "linear_mean_patch": [published.mean_patch, chosen.mean_patch],
            "training_images": [_AUGMENTED, _AUGMENTED if config.augment else _STORED],
        }
        settings |= {name: used for name, (_, used) in compared.items()}
        pairs |= compared | {"learning_rate": [defaults.learning_rates[0], config.learning_rates[0]]}
    deviations = {name: pair for name, pair in pairs.items() if pair[0] != pair[1]} | unpublished(spec)
    return Protocol(name=BENCHMARKS["knn"].protocol, version=PROTOCOL_VERSION, settings=settings, deviations=deviations)
