"""The checks of NYU depth: every mistake is one line that names the files, before anything runs."""

import shutil
from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from common.images import evenly
from eval.depth.data import EIGEN_BOX, Pair, check_data, examine, list_splits, look_at_depth, read_pair, scaled_box
from tests.eval.nyu import HEIGHT, WIDTH, make_nyu, write_depth


@pytest.fixture(scope="module")
def whole(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return make_nyu(tmp_path_factory.mktemp("nyu"))


@pytest.fixture
def nyu(whole: Path, tmp_path: Path) -> Path:
    return shutil.copytree(whole, tmp_path / "nyu")


DEPTH = "room_test/sync_depth_00001.png"
IMAGE = "room_test/rgb_00001.jpg"


def depth_of(root: Path) -> np.ndarray:
    return np.array(Image.open(root / DEPTH))


def change_depths(split: str, factor: float) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        for path in root.glob(f"room_{split}/*.png"):
            write_depth(path, (np.array(Image.open(path)) * factor).astype(np.uint16))

    return change


def in_metres(root: Path) -> None:
    write_depth(root / DEPTH, (depth_of(root) // 1000).astype(np.uint16))


def without_depth(root: Path) -> None:
    write_depth(root / DEPTH, np.zeros((HEIGHT, WIDTH), np.uint16))


def with_depth_outside_of_the_box_only(root: Path) -> None:
    depth = depth_of(root)
    top, bottom, left, right = scaled_box(EIGEN_BOX, HEIGHT, WIDTH)
    depth[top:bottom, left:right] = 0
    write_depth(root / DEPTH, depth)


def of_another_size(root: Path) -> None:
    write_depth(root / DEPTH, depth_of(root)[:-1])


def cut_off(root: Path) -> None:
    content = (root / DEPTH).read_bytes()
    (root / DEPTH).write_bytes(content[: len(content) // 2])


def change_list(old: str, new: str) -> Callable[[Path], None]:
    def change(root: Path) -> None:
        path = root / "nyu_test.txt"
        path.write_text(path.read_text().replace(old, new))

    return change


def depth_of_floats(root: Path) -> None:
    Image.fromarray(depth_of(root) / np.float32(1000)).save((root / DEPTH).with_suffix(".tiff"))
    change_list(DEPTH, DEPTH.replace(".png", ".tiff"))(root)


MEDIAN = "half of the depth maps have a median depth of"
UNSCORED = f"no valid depth in the part and range that are scored: {DEPTH}"
OTHER_LINES = "has lines other than `image depth focal-length`"
WRONG: dict[str, tuple[Callable[[Path], object], str]] = {
    "metres": (in_metres, f"show nothing farther than 100 mm, as if they held metres: {DEPTH}; multiply them by 1000"),
    "centimetres": (change_depths("test", 0.1), f"nyu_test.txt: {MEDIAN}"),
    "units of KITTI": (change_depths("test", 0.256), f"nyu_test.txt: {MEDIAN}"),
    "tenths": (change_depths("train", 10), f"nyu_train.txt: {MEDIAN}"),
    "8 bits": (
        lambda root: write_depth(root / DEPTH, (depth_of(root) // 40).astype(np.uint8)),
        f"do not have 16 bits per pixel, which millimetres need: {DEPTH}",
    ),
    "colours": (lambda root: Image.open(root / IMAGE).save(root / DEPTH), f"not one number per pixel: {DEPTH}"),
    "nothing": (without_depth, UNSCORED),
    "outside of the box": (with_depth_outside_of_the_box_only, UNSCORED),
    "beyond ten metres": (lambda root: write_depth(root / DEPTH, np.full((HEIGHT, WIDTH), 10_000, np.uint16)), UNSCORED),
    "largest number": (
        lambda root: write_depth(root / DEPTH, np.where(depth_of(root) == 0, 65535, depth_of(root)).astype(np.uint16)),
        f"as other data sets mark what was not measured: {DEPTH}; write 0 there",
    ),
    "another size": (of_another_size, f"differ in size from their depth maps: {IMAGE}"),
    "cut off": (cut_off, f"cut off before their end: {DEPTH}"),
    "no depth map": (
        lambda root: (root / DEPTH).unlink(),
        f"lacks depth maps that nyu_test.txt names: {DEPTH}; get them from https://",
    ),
    "no image": (
        lambda root: (root / IMAGE).unlink(),
        f"lacks images that nyu_test.txt names: {IMAGE}; get them from https://",
    ),
    "no list": (
        lambda root: (root / "nyu_test.txt").unlink(),
        "has no nyu_test.txt; get it from https://github.com/cleinc/bts, where it is nyudepthv2_test_files_with_gt.txt",
    ),
    "None": (
        change_list(DEPTH, "None"),
        f"nyu_test.txt names images without a depth map (`None`): {IMAGE}; take them off the list",
    ),
    "floats": (
        depth_of_floats,
        "nyu_test.txt names depth maps that are not PNG: room_test/sync_depth_00001.tiff; make PNG of 16 bits",
    ),
    "empty list": (lambda root: (root / "nyu_test.txt").write_text("\n"), "nyu_test.txt is empty"),
    "no focal length": (change_list(" 518.8579", ""), OTHER_LINES),
    "words": (change_list("518.8579", "wide"), OTHER_LINES),
    "path outside": (change_list("room_test/rgb_00001", "../room_test/rgb_00001"), f"{OTHER_LINES}, with paths below"),
    "image twice": (change_list("rgb_00000", "rgb_00001"), f"nyu_test.txt names images more than once: {IMAGE}"),
    "trained image": (
        change_list("room_test/rgb_00001.jpg room_test", "room_train/rgb_00001.jpg room_train"),
        "images are in both nyu_train.txt and nyu_test.txt: room_train/rgb_00001.jpg",
    ),
}


@pytest.mark.parametrize(("damage", "message"), WRONG.values(), ids=WRONG)
def test_wrong_data_are_one_line_before_anything_runs(nyu: Path, damage: Callable[[Path], object], message: str) -> None:
    damage(nyu)
    with pytest.raises(ValueError, match=r"\A[^\n]+\Z") as caught:
        check_data(nyu)
    assert message in str(caught.value)
    assert any(message[-40:] in str(finding) for finding in examine(nyu, deep=True, jobs=1))


def test_a_training_image_may_lack_depth_where_test_images_are_scored_but_not_everywhere(nyu: Path) -> None:
    path = nyu / "room_train/sync_depth_00002.png"
    depth = np.zeros((HEIGHT, WIDTH), np.uint16)
    depth[0, 0] = 1500
    write_depth(path, depth)
    check_data(nyu)
    write_depth(path, 0 * depth)
    with pytest.raises(ValueError, match=r"no valid depth: room_train/sync_depth_00002.png; take them off the list"):
        check_data(nyu)


def test_the_lists_are_read_with_and_without_leading_slashes(whole: Path) -> None:
    splits = check_data(whole)
    assert [list(splits[name].pairs)[-1] for name in ("train", "test")] == [
        "room_train/rgb_00004.jpg",
        "room_test/rgb_00002.jpg",
    ]
    assert (splits["test"].describe().num_items, splits["test"].describe().coverage) == (3, "subset")
    texts = [finding.text for finding in list_splits(whole)[1]]
    assert texts == ["train: 5 of 24,231 pairs of image and depth", "test: 3 of 654 pairs of image and depth"]


def test_depth_is_read_in_millimetres_and_damage_is_named(nyu: Path) -> None:
    pair = Pair(nyu / IMAGE, nyu / DEPTH)
    image, depth = read_pair(pair)
    assert (image.shape, depth.shape) == ((HEIGHT, WIDTH, 3), (HEIGHT, WIDTH))
    assert set((depth[depth > 0] // 1000).tolist()) == {1, 4}
    whole = (nyu / DEPTH).read_bytes()
    for damage, message in (
        (cut_off, "not a readable depth map"),
        (of_another_size, r"depth of shape \(59, 80\) for an image of 60 x 80"),
        (in_metres, "nothing is farther than 100 mm; .* metres instead of millimetres"),
        (without_depth, "nothing is farther than 100 mm; it has no valid depth"),
    ):
        damage(nyu)
        with pytest.raises(ValueError, match=f"{DEPTH}: {message}"):
            read_pair(pair)
        (nyu / DEPTH).write_bytes(whole)
    cut_off(nyu)
    assert isinstance(look_at_depth(nyu / DEPTH), str)
    assert len(evenly(range(5000), 1000)) == 1000
