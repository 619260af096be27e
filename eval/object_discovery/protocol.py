"""The protocols of object discovery: LOST's and TokenCut's.

Sources: valeoai/LOST fcedbec, `object_discovery.py`, `main_lost.py`, `datasets.py`; YangtaoWANG95/TokenCut fed52cd,
`object_discovery.py`.
"""

import dataclasses
from dataclasses import dataclass

from backbones.spec import BackboneSpec, ViTSpec, architecture_name, spec_to_dict
from eval.object_discovery.config import Method, ObjectDiscoveryConfig
from eval.object_discovery.scores import LEAST_IOU
from eval.result import Protocol
from eval.tasks import BENCHMARKS

PROTOCOL_VERSION = 1  # grows whenever a change can change a metric


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The constants of a method; None where it has no such thing."""

    features: str = "keys of the last block, all heads, without CLS token"
    unit_length: bool = False  # whether keys are compared by their cosine
    candidates: int | None = 100  # patches of the lowest degree, the seed among them, from which the object grows
    least_similarity: float = 0.0  # above which patches are similar
    weak_edge: float | None = None  # what patches that are not similar are to each other
    least_iou: float = LEAST_IOU  # of the box with an object's, from which the object is found
    hard_objects: bool = True


PUBLISHED: dict[Method, Rules] = {
    "lost": Rules(),
    "tokencut": Rules(unit_length=True, candidates=None, least_similarity=0.2, weak_edge=1e-5),
}


def check_backbone(spec: BackboneSpec) -> None:
    """ValueError unless the last block has keys that LOST and TokenCut are about."""
    if not isinstance(spec, ViTSpec):
        given = f"{architecture_name(spec_to_dict(spec))} ({spec.family})"
        raise ValueError(
            f"object discovery takes the keys of a ViT's last block, which {given} has not; give a ViT of our own family"
        )


def rules_of(config: ObjectDiscoveryConfig) -> Rules:
    """The method's constants with the user's own."""
    return dataclasses.replace(PUBLISHED[config.method], hard_objects=not config.no_hard)


def protocol_of(config: ObjectDiscoveryConfig) -> Protocol:
    published, used = (dataclasses.asdict(rules) for rules in (PUBLISHED[config.method], rules_of(config)))
    deviations = {name: [value, used[name]] for name, value in published.items() if used[name] != value}
    name = BENCHMARKS[config.method].protocol
    return Protocol(name=name, version=PROTOCOL_VERSION, settings=used, deviations=deviations)
