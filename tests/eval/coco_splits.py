"""The splits of COCO without its files."""

from pathlib import Path
from typing import Any

from eval.detection.data import FULL_ANNOTATIONS, FULL_SIZES, FULL_TRAINABLE, Split


def full_coco() -> dict[str, Split]:
    """The whole benchmark's; images of val2017 count as annotated."""
    trainable = {**FULL_SIZES, "train2017": FULL_TRAINABLE}
    lines = tuple(f"{index}.jpg 1" for index in range(max(FULL_SIZES.values())))
    common: dict[str, Any] = {"root": Path("coco"), "limit": None, "categories": ((1, "person"),), "sizes": {}}
    return {
        name: Split(
            name=name,
            images=lines[:size],
            trainable=lines[: trainable[name]],
            num_annotations=FULL_ANNOTATIONS[name],
            annotations_sha256="0" * 64,
            **common,
        )
        for name, size in FULL_SIZES.items()
    }
