"""The protocols of image retrieval: DINO's and iBOT's.

Sources: facebookresearch/dino 7c446df, `eval_image_retrieval.py`, `eval_knn.py`, `utils.py` (`multi_scale`), README; bytedance/ibot
da316d8, `run.sh`.
"""

import dataclasses
from dataclasses import dataclass

from backbones.spec import BackboneSpec
from eval.probes.images import CLASS_TOKEN, token_of
from eval.record import unpublished
from eval.result import Protocol
from eval.retrieval.config import ProtocolName, RetrievalConfig
from eval.retrieval.data import NAMES
from eval.tasks import BENCHMARKS

PROTOCOL_VERSION = 1  # grows whenever a change can change a metric
SCALES = (1.0, 2**-0.5, 0.5)


@dataclass(frozen=True, kw_only=True)
class Rules:
    """The constants of a protocol."""

    image_size: int = 224  # longest side in pixels; smaller images stay
    scales: tuple[float, ...] = (1.0,)  # features of the image at these are averaged before they are normalised
    features: str = CLASS_TOKEN
    ranks: tuple[int, ...] = (1, 5, 10)  # of mP@k
    distractors: int = 0  # images that are searched too


_MULTISCALE = Rules(image_size=512, scales=SCALES)
PUBLISHED: dict[tuple[ProtocolName, str], Rules] = {
    ("dino", "roxford5k"): Rules(),
    ("dino", "rparis6k"): _MULTISCALE,
    **{("ibot", key): _MULTISCALE for key in NAMES},
}


def rules_of(config: RetrievalConfig, key: str, spec: BackboneSpec, distractors: int) -> Rules:
    """The protocol's constants on a set with the user's own."""
    published = PUBLISHED[config.protocol, key]
    multiscale = len(published.scales) > 1 if config.multiscale is None else config.multiscale
    return dataclasses.replace(
        published,
        image_size=config.image_size or published.image_size,
        scales=SCALES if multiscale else (1.0,),
        features=token_of(spec),
        distractors=distractors,
    )


def protocol_of(config: RetrievalConfig, key: str, rules: Rules, spec: BackboneSpec) -> Protocol:
    """Settings as used, and how they depart; a network without CLS token is represented as DINO does such networks."""
    published, used = dataclasses.asdict(PUBLISHED[config.protocol, key]), dataclasses.asdict(rules)
    deviations = {name: [value, used[name]] for name, value in published.items() if used[name] != value and name != "features"}
    name = BENCHMARKS[f"retrieval_{config.protocol}"].protocol
    return Protocol(name=name, version=PROTOCOL_VERSION, settings=used, deviations=deviations | unpublished(spec))
