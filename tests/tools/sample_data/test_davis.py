from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from tools.sample_data.davis import SEQUENCES
from tools.sample_data.images import davis_palette


def _ids(samples: Path, sequence: str) -> list[np.ndarray]:
    folder = samples / "DAVIS/Annotations/480p" / sequence
    return [np.asarray(Image.open(path)) for path in sorted(folder.iterdir())]


def test_the_list_names_the_sequences(samples: Path) -> None:
    listed = (samples / "DAVIS/ImageSets/2017/val.txt").read_text().split()
    assert listed == [sequence.name for sequence in SEQUENCES]
    for kind in ("JPEGImages", "Annotations"):
        assert sorted(path.name for path in (samples / "DAVIS" / kind / "480p").iterdir()) == sorted(listed)


@pytest.mark.parametrize("sequence", SEQUENCES, ids=lambda sequence: sequence.name)
def test_objects_move_and_change_size(samples: Path, sequence: object) -> None:
    name, count = sequence.name, len(sequence.actors)
    frames = sorted((samples / "DAVIS/JPEGImages/480p" / name).iterdir())
    masks = _ids(samples, name)
    assert [path.name for path in frames] == [f"{number:05d}.jpg" for number in range(8)]
    for path, mask in zip(frames, masks, strict=True):
        with Image.open(path) as frame:
            assert frame.size == mask.shape[::-1]
        assert np.unique(mask).tolist() == list(range(count + 1))
    for number in range(1, count + 1):
        areas = [(mask == number).sum() for mask in masks]
        centres = np.array([np.argwhere(mask == number).mean(axis=0) for mask in masks])
        assert max(areas) > 1.15 * min(areas)
        assert np.linalg.norm(centres[-1] - centres[0]) > 20


def test_one_and_two_objects() -> None:
    assert [len(sequence.actors) for sequence in SEQUENCES] == [1, 2]


def test_masks_are_indexed_with_the_palette_of_davis(samples: Path) -> None:
    path = next((samples / "DAVIS/Annotations/480p").rglob("*.png"))
    with Image.open(path) as image:
        assert image.mode == "P"
        assert image.getpalette() == davis_palette()
    # The published colours: black, red, green, yellow, blue, magenta, cyan, grey, dark red.
    assert davis_palette()[:27] == [
        *(0, 0, 0, 128, 0, 0, 0, 128, 0, 128, 128, 0, 0, 0, 128, 128, 0, 128, 0, 128, 128, 128, 128, 128, 64, 0, 0)
    ]


@pytest.mark.data
def test_palette_is_that_of_real_annotations(real_data_dir: Path) -> None:
    path = sorted((real_data_dir / "DAVIS/Annotations/480p").rglob("*.png"))[0]
    with Image.open(path) as image:
        palette = image.getpalette()
    assert palette == davis_palette()[: len(palette)]
