"""The DAVIS layout: what is read from it, and what `python -m eval` and the data doctor find alike."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.davis import data
from eval.davis.data import DavisSplit, examine, find_sequences, fingerprint, read_image_set, sequence_names
from eval.findings import Finding
from eval.propagation.masks import write_mask
from eval.propagation.measures import SKIPPED_IDS
from tests.eval.davis.conftest import FRAMES, HEIGHT, SEQUENCES, WIDTH, draw_sequence, sequences_of
from tests.eval.test_image_checks import zero_the_checksum

FRAME = "JPEGImages/480p/boat/00002.jpg"
MASK = "Annotations/480p/boat/00002.png"
FIRST_MASK = "Annotations/480p/boat/00000.png"


def problems(findings: list[Finding]) -> list[Finding]:
    return [finding for finding in findings if finding.is_problem]


def test_sequences_come_in_the_order_of_the_list(davis: Path) -> None:
    assert sequence_names(DavisSplit.chosen(davis, DavisSplit(root=davis), "drone, boat")) == ["boat", "drone"]
    place = davis / "ImageSets/2017/val.txt"
    place.write_text("drone\n\nboat\n")
    first, second = find_sequences(DavisSplit(root=davis), all_masks=True)
    assert (first.name, second.name) == ("drone", "boat")
    assert len(second.frames) == len(second.masks) == FRAMES
    assert second.size == (HEIGHT, WIDTH)
    assert np.unique(second.first_mask()).tolist() == [0, 1, 2]
    place.unlink()
    assert sequence_names(DavisSplit(root=davis, split="all")) == list(SEQUENCES)
    with pytest.raises(ValueError, match=r"val\.txt: no such file; .* should be a DAVIS folder with ImageSets/2017"):
        sequence_names(DavisSplit(root=davis))


def test_davis_2016_lists_and_masks(davis: Path) -> None:
    folder = davis / "ImageSets/480p"
    folder.mkdir()
    lines = [f"/JPEGImages/480p/cart/{index:05d}.jpg /Annotations/480p/cart/{index:05d}.png\n" for index in range(6)]
    (folder / "val.txt").write_text("".join(lines))
    Image.fromarray(np.full((HEIGHT, WIDTH), 255, np.uint8)).save(davis / "Annotations/480p/cart/00000.png")
    (sequence,) = find_sequences(DavisSplit(root=davis, year="2016"), all_masks=False)
    assert sequence.name == "cart"
    assert sequence.first_mask().max() == 1
    # Undecided pixels are background where objects are told apart.
    mask_of(1, 255)(davis / FIRST_MASK)
    assert find_sequences(DavisSplit(root=davis), all_masks=False)[0].first_mask().max() == 1


def test_a_line_of_any_length_is_read_at_once(tmp_path: Path) -> None:
    (tmp_path / "val.txt").write_text("a/" * 50_000 + "b/0.jpg")
    with pytest.raises(ValueError, match=r"val\.txt: sequence"):
        read_image_set(tmp_path / "val.txt")


def test_what_suffices_for_propagation_but_not_for_scoring(davis: Path) -> None:
    for path in [*davis.glob("Annotations/480p/boat/0000[1-9].png"), *davis.glob("*/480p/cart/0000[2-9].*")]:
        path.unlink()
    assert len(find_sequences(DavisSplit(root=davis), all_masks=False)) == len(SEQUENCES)
    with pytest.raises(ValueError, match=r"no mask: boat/00001\.jpg, .*; scoring needs a mask of every frame") as info:
        find_sequences(DavisSplit(root=davis), all_masks=True)
    assert "fewer than 3 frames, which cannot be scored: cart (2)" in str(info.value)


def test_everything_that_is_missing_is_named(davis: Path) -> None:
    (davis / FRAME).unlink()
    (davis / "Annotations/480p/cart/00000.png").unlink()
    shutil.rmtree(davis / "JPEGImages/480p/drone")
    with pytest.raises(ValueError, match=str(davis)) as info:
        find_sequences(DavisSplit(root=davis), all_masks=False)
    assert f"no {FRAME}" in str(info.value)
    assert "frames have no mask: cart/00000.jpg; propagation starts from the first frame's mask" in str(info.value)
    assert "sequences have no frames (*.jpg) in JPEGImages/480p: drone" in str(info.value)


def test_a_healthy_subset(davis: Path) -> None:
    """2,000 bytes after the end of a frame passed everywhere but in DAVIS."""
    with (davis / FRAME).open("ab") as stream:
        stream.write(bytes(2000))
    for deep in (False, True):
        (found,) = examine(davis, deep)
        assert (found.kind, found.text) == ("subset", "val: 3 of 30 sequences, 18 of 1,999 frames")
    assert len(find_sequences(DavisSplit(root=davis), all_masks=True)) == len(SEQUENCES)


def mask_of(*ids: int) -> Callable[[Path], None]:
    mask = np.zeros((HEIGHT, WIDTH), np.uint8)
    for row, number in enumerate(ids):
        mask[10 * row : 10 * row + 5] = number
    return lambda path: write_mask(path, mask)


def shrink(path: Path) -> None:
    Image.open(path).resize((5, 3)).save(path)


@pytest.mark.parametrize(
    ("file", "spoil", "kind", "text", "name"),
    [
        (f"JPEGImages/480p/boat/{FRAMES - 1:05d}.jpg", Path.unlink, "missing", "masks have no frame", "boat/00004.png"),
        (MASK, Path.unlink, "missing", "frames have no mask", "boat/00002.jpg"),
        (FRAME, lambda path: path.write_bytes(path.read_bytes()[:-30]), "damaged", "cut off", FRAME),
        (MASK, zero_the_checksum, "damaged", "damaged inside", MASK),
        (MASK, lambda path: Image.open(path).convert("RGB").save(path), "damaged", "colour", MASK),
        (FRAME, lambda path: shutil.copy(path, path.with_suffix(".JPG")), "wrong", "the name of another image", FRAME),
        (FRAME, shrink, "wrong", "differ in size from the first frame", f"{FRAME} (5 x 3 instead of {WIDTH} x {HEIGHT})"),
        (MASK, shrink, "wrong", "differ in size from their frames", f"{MASK} (5 x 3 instead of {WIDTH} x {HEIGHT})"),
    ],
)
def test_what_the_doctor_finds_the_task_refuses(
    file: str, spoil: Callable[[Path], object], kind: str, text: str, name: str, davis: Path
) -> None:
    """Any mask but the first, and any frame, was once looked at only after hours of propagation."""
    spoil(davis / file)
    found = problems(examine(davis))
    assert [(one.kind, text in one.text, name in one.names[0]) for one in found if text in one.text] == [(kind, True, True)]
    with pytest.raises(ValueError, match=text.replace(".", r"\.")) as info:
        find_sequences(DavisSplit(root=davis), all_masks=True)
    for finding in found:
        assert str(finding) in str(info.value)


def test_object_ids_that_cannot_be_followed_or_scored(davis: Path) -> None:
    masks = davis / "Annotations/480p"
    for path in (masks / "boat").iterdir():
        mask_of(255)(path)
    mask_of(1, 2, 3)(masks / "cart/00002.png")
    mask_of(1, 2, 4)(masks / "drone/00000.png")
    found = examine(davis, deep=True)
    assert [(one.kind, one.text, one.names) for one in found if one.kind != "subset"] == [
        ("note", "first masks show no object, so that there is nothing to follow", (FIRST_MASK,)),
        ("note", "later masks show objects that the first one lacks; they are not followed", ("cart/00002.png (3)",)),
        ("note", f"first masks have gaps in their object ids, and {SKIPPED_IDS}", ("drone (1, 2, 4)",)),
    ]
    find_sequences(DavisSplit(root=davis), all_masks=True)
    (davis / "ImageSets/2017/val.txt").write_text("boat\n")
    assert [one.text.partition(";")[0] for one in problems(examine(davis))] == ["no sequence shows an object in its first mask"]
    with pytest.raises(ValueError, match="no sequence shows an object in its first mask; there is nothing to score"):
        find_sequences(DavisSplit(root=davis), all_masks=True)


def test_names_that_would_leave_the_output_or_be_computed(davis: Path) -> None:
    with pytest.raises(ValueError, match=r"^--split '\.\./2017/val': give a name"):
        DavisSplit.chosen(davis, DavisSplit(root=davis, split="../2017/val"))
    (davis / "JPEGImages/480p/boat").rename(davis / "JPEGImages/480p/=1+1")
    with pytest.raises(ValueError, match=r"DAVIS: sequence '=1\+1': give a name"):
        sequence_names(DavisSplit(root=davis, split="all"))


@pytest.mark.parametrize("prefix", ["", "frame_"])
def test_numbers_without_zeros(prefix: str, davis: Path) -> None:
    draw_sequence(davis, "long", 9, frames=12)
    for path in list(davis.glob("*/480p/long/*")):
        path.rename(path.with_name(f"{prefix}{int(path.stem) + 1}{path.suffix}"))
    with pytest.raises(ValueError, match=rf"{prefix}12\.jpg comes before {prefix}2\.jpg by its name"):
        find_sequences(DavisSplit(root=davis, split="all", sequences=("long",)), all_masks=True)


def test_lists_and_sequences(davis: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(data.VAL_FRAMES, "boat", 80)
    lists = davis / "ImageSets/2017"
    (lists / "val.txt").write_text("boat\nplane\n")
    (lists / "train.txt").write_text("cart\n")
    (lists / "test-dev.txt").write_text("golf\n")
    found = examine(davis)
    assert [(one.text, one.names) for one in problems(found)] == [
        ("sequences of ImageSets/2017/val.txt are absent", ("plane",))
    ]
    assert {(one.text, one.names) for one in found if one.kind == "note"} == {
        ("no sequence of ImageSets/2017/test-dev.txt is there; the task needs val only", ()),
        ("sequences are in no list of ImageSets/2017", ("drone",)),
        ("sequences have another number of frames than published", ("boat (5 of 80)",)),
    }
    shutil.rmtree(davis / "JPEGImages")
    (lists / "val.txt").unlink()
    folder, listing = map(str, problems(examine(davis)))
    assert ("there is no folder JPEGImages/480p" in folder, "val.txt: no such file" in listing) == (True, True)


def test_only_all_frames_at_480p_are_the_benchmark(tmp_path: Path) -> None:
    assert (len(data.VAL_FRAMES), sum(data.VAL_FRAMES.values())) == data.PUBLISHED_SIZES["2017", "val"]
    whole, digests = [67] * 19 + [66] * 11, set()  # 1,999 frames of 30 sequences
    for lengths, resolution, coverage in (
        (whole, "480p", "full"),
        (whole, "1080p", "subset"),
        ([66, *whole[1:]], "480p", "subset"),
    ):
        found = fingerprint(DavisSplit(root=tmp_path, resolution=resolution), sequences_of(lengths))
        assert (found.name, found.split, found.num_items, found.coverage) == ("DAVIS-2017", "val", 30, coverage)
        digests.add(found.listing_sha256)
    assert len(digests) == 2, "of the names and their numbers of frames"
