from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.davis.dataset import DavisDataError, DavisSplit, VideoSequence, check_data, find_sequences, sequence_names
from eval.davis.fingerprint import fingerprint
from eval.davis.masks import write_mask
from tests.eval.davis.conftest import FRAMES, HEIGHT, SEQUENCES, WIDTH, draw_sequence


def test_sequences_come_in_the_order_of_the_list(davis: Path) -> None:
    (davis / "ImageSets/2017/val.txt").write_text("drone\n\nboat\n")
    first, second = find_sequences(DavisSplit(root=davis), all_masks=True)
    assert (first.name, second.name) == ("drone", "boat")
    assert len(second.frames) == len(second.masks) == FRAMES
    assert second.size == (HEIGHT, WIDTH)
    assert np.unique(second.first_mask()).tolist() == [0, 1, 2]


def test_a_part_of_the_split(davis: Path) -> None:
    split = DavisSplit.from_options(davis, "val", "2017", "480p", "drone, boat")
    assert sequence_names(split) == ["boat", "drone"]
    with pytest.raises(DavisDataError, match="no sequence plane in split 'val'; it has boat, cart, drone"):
        sequence_names(DavisSplit.from_options(davis, "val", "2017", "480p", "plane"))


def test_any_folder_without_lists(davis: Path) -> None:
    (davis / "ImageSets/2017/val.txt").unlink()
    assert sequence_names(DavisSplit(root=davis, split="all")) == list(SEQUENCES)


def test_davis_2016_lists_and_masks(davis: Path) -> None:
    folder = davis / "ImageSets/480p"
    folder.mkdir()
    (folder / "val.txt").write_text(
        "".join(f"/JPEGImages/480p/cart/{i:05d}.jpg /Annotations/480p/cart/{i:05d}.png\n" for i in range(6))
    )
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(davis / "Annotations/480p/cart/00000.png")
    (sequence,) = find_sequences(DavisSplit(root=davis, year="2016"), all_masks=False)
    assert sequence.name == "cart"
    assert sequence.first_mask().max() == 1


def test_undecided_pixels_of_the_first_mask_are_background(davis: Path) -> None:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    mask[:9], mask[20:] = 1, 255
    write_mask(davis / "Annotations/480p/boat/00000.png", mask)
    assert find_sequences(DavisSplit(root=davis), all_masks=True)[0].first_mask().max() == 1


def test_masks_of_the_first_frames_suffice_for_propagation(davis: Path) -> None:
    for path in (davis / "Annotations/480p/boat").glob("*.png"):
        if path.stem != "00000":
            path.unlink()
    assert len(find_sequences(DavisSplit(root=davis), all_masks=False)) == len(SEQUENCES)
    with pytest.raises(DavisDataError, match=r"480p/boat: no 00001\.png, .*; scoring needs a mask of every frame"):
        check_data(davis)


def test_what_is_missing_is_named(davis: Path) -> None:
    check_data(davis)
    (davis / "JPEGImages/480p/boat/00002.jpg").unlink()
    (davis / "Annotations/480p/cart/00000.png").unlink()
    for path in (davis / "JPEGImages/480p/drone").glob("*.jpg"):
        path.unlink()
    with pytest.raises(DavisDataError) as info:
        check_data(davis, all_masks=False)
    message = str(info.value)
    assert "boat/00002.jpg: no such frame, though the sequence goes on" in message
    assert "cart: no 00000.png; propagation starts from the first frame's mask" in message
    assert "drone: no frames (*.jpg)" in message


def test_a_missing_last_frame_is_noticed_by_its_mask(davis: Path) -> None:
    (davis / f"JPEGImages/480p/boat/{FRAMES - 1:05d}.jpg").unlink()
    with pytest.raises(DavisDataError, match=rf"boat: no frames for the masks {FRAMES - 1:05d}\.png"):
        check_data(davis)


def test_a_folder_that_is_no_davis(tmp_path: Path) -> None:
    with pytest.raises(
        DavisDataError, match=r"val\.txt: no such file; .* should be a DAVIS folder with ImageSets/2017, JPEGImages/480p"
    ):
        check_data(tmp_path / "nowhere")


def test_a_first_mask_of_another_size(davis: Path) -> None:
    write_mask(davis / "Annotations/480p/boat/00000.png", np.ones((3, 4), np.uint8))
    sequence = find_sequences(DavisSplit(root=davis), all_masks=False)[0]
    with pytest.raises(DavisDataError, match=rf"00000\.png: 4 x 3 pixels, but its frame has {WIDTH} x {HEIGHT}"):
        sequence.first_mask()


def shrink(path: Path) -> None:
    write_mask(path, np.ones((3, 4), np.uint8))


def colour(path: Path) -> None:
    Image.new("RGB", (WIDTH, HEIGHT)).save(path)


def no_png(path: Path) -> None:
    Image.new("L", (WIDTH, HEIGHT)).save(path, "JPEG")


def cut_the_header(path: Path) -> None:
    path.write_bytes(path.read_bytes()[:20])


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (shrink, f"4 x 3 pixels, but its frame has {WIDTH} x {HEIGHT}"),
        (colour, "a PNG of mode RGB"),
        (no_png, "a JPEG file; masks are indexed PNG files"),
        (cut_the_header, "damaged mask"),
    ],
)
def test_what_cannot_be_scored_is_found_before_anything_runs(spoil: Callable[[Path], None], message: str, davis: Path) -> None:
    """Any mask but the first was once looked at only after hours of propagation."""
    spoil(davis / "Annotations/480p/boat/00003.png")
    split = DavisSplit(root=davis)
    assert len(find_sequences(split, all_masks=False)) == 3
    with pytest.raises(DavisDataError, match=f"boat/00003.png: {message}"):
        find_sequences(split, all_masks=True)


def test_too_few_frames_to_be_scored(davis: Path) -> None:
    draw_sequence(davis, "short", 9, frames=2)
    (davis / "ImageSets/2017/val.txt").write_text("boat\nshort\n")
    split = DavisSplit(root=davis)
    assert len(find_sequences(split, all_masks=False)) == 2
    with pytest.raises(DavisDataError, match="short: 2 annotated frames; the first and the last are not scored"):
        find_sequences(split, all_masks=True)


@pytest.mark.parametrize("prefix", ["", "frame_"])
def test_numbers_without_zeros(prefix: str, davis: Path) -> None:
    draw_sequence(davis, "long", 9, frames=12)
    for folder, suffix in (("JPEGImages", ".jpg"), ("Annotations", ".png")):
        for path in sorted((davis / folder / "480p/long").iterdir()):
            path.rename(path.with_name(f"{prefix}{int(path.stem) + 1}{suffix}"))
    with pytest.raises(DavisDataError, match=rf"{prefix}12\.jpg comes before {prefix}2\.jpg by its name"):
        find_sequences(DavisSplit(root=davis, split="all", sequences=("long",)), all_masks=True)


def test_the_fingerprint_sees_the_frames(davis: Path) -> None:
    split = DavisSplit(root=davis)
    before = fingerprint(split, find_sequences(split, all_masks=True))
    assert (before.name, before.split, before.num_items, before.coverage) == ("DAVIS-2017", "val", 3, "subset")
    last = FRAMES - 1
    (davis / f"JPEGImages/480p/boat/{last:05d}.jpg").unlink()
    (davis / f"Annotations/480p/boat/{last:05d}.png").unlink()
    assert fingerprint(split, find_sequences(split, all_masks=True)).listing_sha256 != before.listing_sha256


@pytest.mark.parametrize(
    ("resolution", "frames", "coverage"), [("480p", 1999, "full"), ("480p", 1998, "subset"), ("1080p", 1999, "subset")]
)
def test_only_all_frames_at_480p_are_the_benchmark(resolution: str, frames: int, coverage: str, davis: Path) -> None:
    split = DavisSplit(root=davis, resolution=resolution)
    shares = [frames // 30 + (index < frames % 30) for index in range(30)]
    sequences = [
        VideoSequence(name=f"s{index}", frames=(davis,) * share, masks=(), one_object=False, size=(480, 854))
        for index, share in enumerate(shares)
    ]
    assert fingerprint(split, sequences).coverage == coverage


def test_sample_data_stay_sample_data(davis: Path) -> None:
    (davis / "patchbench_sample.json").write_text("{}")
    split = DavisSplit(root=davis)
    assert fingerprint(split, find_sequences(split, all_masks=True)).coverage == "sample"
