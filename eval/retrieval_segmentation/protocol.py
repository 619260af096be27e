"""The protocols of dense retrieval: their settings, what labels mean in each, and how a run departs from what is published.

Sources: vpariza/open-hummingbird-eval 5e79da2, `hbird/hbird_eval.py`, `hbird/utils/transforms.py`, README; facebookresearch/capi
98b4fa1, `eval_segmentation.py`. Loads no torch.
"""

import dataclasses
from dataclasses import dataclass
from typing import NamedTuple

from backbones.spec import BackboneSpec
from common.images import IMAGENET_STD
from eval.probes.data import VOID, LabelledSet
from eval.record import unpublished
from eval.result import Protocol
from eval.retrieval_segmentation.config import RetrievalSegmentationConfig

PROTOCOL_VERSION = 1  # grows whenever a change can change a metric

MEMORY_SIZES = {"102k": 102_400, "1.02m": 1_024_000, "10.24m": 10_240_000}
HUMMINGBIRD_STD = (0.229, 0.224, 0.255)


@dataclass(frozen=True, kw_only=True)
class Settings:
    """What a protocol does; the quirks of the authors' code are the first five.

    - `std`: deviation of the image normalisation, in RGB.
    - `void_is_background`: pixels that do not count in the test have class 0 in the memory; otherwise they hold no label there.
    - `unlabelled_is_class`: what is void can be predicted, which is always wrong: ADE20K has 151 classes.
    - `matching`: predicted classes are matched with the true ones so that the mIoU is largest, as if they were clusters.
    - `absent_classes`: classes that are neither labelled nor predicted count 0 in the mean; otherwise not at all.
    """

    std: tuple[float, float, float] = HUMMINGBIRD_STD
    void_is_background: bool = True
    unlabelled_is_class: bool = True
    matching: bool = True
    absent_classes: bool = True
    input_size: int = 512
    bicubic: bool = False
    augmented: bool = True  # the memory's images are random views
    augmentation_epochs: int = 2  # views of each
    memory_size: int = MEMORY_SIZES["102k"]  # 0: all patches
    neighbours: tuple[int, ...] = (30,)  # of several, and of several distances, training images that are held out choose
    distances: tuple[str, ...] = ("cosine",)
    held_out: float = 0.0
    temperature: float | None = 0.02  # None: the majority of the neighbours decides, pixel by pixel
    standardised: bool = False  # features have mean 0 and deviation 1 over the training images that are not held out
    drop_void_patches: bool = False  # patches whose commonest label is void are not remembered


FIXED = Settings(std=IMAGENET_STD, void_is_background=False, unlabelled_is_class=False, matching=False, absent_classes=False)
CAPI = dataclasses.replace(
    FIXED,
    unlabelled_is_class=True,
    input_size=224,
    bicubic=True,
    augmented=False,
    augmentation_epochs=1,
    memory_size=0,
    neighbours=(1, 3, 10, 30),
    distances=("cosine", "L2"),
    held_out=0.1,
    temperature=None,
    standardised=True,
    drop_void_patches=True,
)
PUBLISHED = {"hummingbird": Settings(), "hummingbird-fixed": FIXED, "capi-knn": CAPI}


class Labels(NamedTuple):
    """What a data set's labels become: classes from 0, and VOID for none; by tables of 256, for the memory and for the truth."""

    names: tuple[str, ...]  # of the classes
    remembered: tuple[int, ...]
    true: tuple[int, ...]
    void_class: int = VOID  # what void pixels are in the memory


def labels_of(found: LabelledSet, settings: Settings) -> Labels:
    """Hummingbird and CAPI keep the files' numbers; under CAPI, void is one more label in the memory."""
    numbers = tuple(range(256))
    if not settings.unlabelled_is_class:
        table = tuple((number - 1) % 256 for number in numbers) if found.void == 0 else numbers
        return Labels(found.classes, table, table)
    if found.void == 0:
        return Labels((found.void_name, *found.classes), numbers, (VOID, *numbers[1:]), 0)
    if settings.void_is_background:
        return Labels(found.classes, (*numbers[:VOID], 0), numbers, 0)
    return Labels((*found.classes, found.void_name), (*numbers[:VOID], found.num_classes), numbers, found.num_classes)


def settings_of(config: RetrievalSegmentationConfig, stride: int) -> Settings:
    """The protocol's settings with the user's; a published input size is rounded down to a multiple of the backbone's stride."""
    published = PUBLISHED[config.protocol]
    size = config.input_size or published.input_size // stride * stride
    if size % stride:
        raise ValueError(f"input_size={size} is not a multiple of {stride}, the side of the backbone's patches")
    return dataclasses.replace(
        published,
        input_size=size,
        augmentation_epochs=config.augmentation_epochs or published.augmentation_epochs,
        memory_size=config.memory_size or published.memory_size,
        neighbours=(config.neighbours,) if config.neighbours else published.neighbours,
        temperature=config.temperature or published.temperature,
    )


def protocol_of(config: RetrievalSegmentationConfig, stride: int, spec: BackboneSpec) -> Protocol:
    """The protocol with hummingbird's memory size in its name, since each size has published values of its own."""
    used, published = settings_of(config, stride), PUBLISHED[config.protocol]
    name: str = config.protocol
    if used.memory_size:
        sizes = {size: key for key, size in MEMORY_SIZES.items() if size <= used.memory_size} or {102_400: "102k"}
        published = dataclasses.replace(published, memory_size=max(sizes))
        name = f"{name}-{sizes[max(sizes)]}"
    pairs = {key: [value, getattr(used, key)] for key, value in dataclasses.asdict(published).items()}
    pairs["input_size"][0] = published.input_size // stride * stride
    deviations = {key: pair for key, pair in pairs.items() if pair[0] != pair[1]} | unpublished(spec)
    return Protocol(name=name, version=PROTOCOL_VERSION, settings=dataclasses.asdict(used), deviations=deviations)
