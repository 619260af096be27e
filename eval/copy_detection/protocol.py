"""DINO's protocol of copy detection.

Source: facebookresearch/dino 7c446df, `eval_copy_detection.py`, `utils.py` (`PCA`), README.
"""

import dataclasses
from dataclasses import dataclass

from backbones.spec import BackboneSpec
from eval.copy_detection.config import CopyDetectionConfig
from eval.probes.images import CLASS_TOKEN, token_of
from eval.record import unpublished
from eval.result import Protocol
from eval.tasks import BENCHMARKS

PROTOCOL_VERSION = 1  # grows whenever a change can change a metric


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The constants of the protocol."""

    image_size: int = 320
    features: str = CLASS_TOKEN  # the first half of a descriptor
    patch_power: float = 4.0  # of the generalised mean of the patches, the second half
    least_patch_value: float = 1e-6  # to which patches are raised before
    whitening_images: int = 20_000
    whitening_power: float = 0.5
    least_eigenvalue: float = 1e-5  # of the largest one; smaller ones are raised to it
    distractors: int = 10_000
    searched: int = 20  # ranks that count


PUBLISHED = Rules()


def rules_of(config: CopyDetectionConfig, spec: BackboneSpec, whitening_images: int, distractors: int) -> Rules:
    """The protocol's constants with the user's own."""
    return dataclasses.replace(
        PUBLISHED,
        image_size=config.image_size,
        features=token_of(spec),
        whitening_images=whitening_images,
        distractors=distractors,
    )


def protocol_of(rules: Rules, spec: BackboneSpec) -> Protocol:
    """Settings as used, and how they depart; DINO has no rule for networks without CLS token."""
    published, used = dataclasses.asdict(PUBLISHED), dataclasses.asdict(rules)
    deviations = {name: [value, used[name]] for name, value in published.items() if used[name] != value}
    name = BENCHMARKS["copydays"].protocol
    return Protocol(name=name, version=PROTOCOL_VERSION, settings=used, deviations=deviations | unpublished(spec))
