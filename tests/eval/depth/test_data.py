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


def in_metres(root: Path) -> None:
    write_depth(root / DEPTH, (depth_of(root) // 1000).astype(np.uint16))


def all_in_centimetres(root: Path) -> None:
    for path in root.glob("room_test/*.png"):
        write_depth(path, (np.array(Image.open(path)) // 10).astype(np.uint16))


def all_in_tenths(root: Path) -> None:
    for path in root.glob("room_train/*.png"):
        write_depth(path, (np.array(Image.open(path)) * 10).astype(np.uint16))


def all_as_kitti(root: Path) -> None:
    """256 units per metre."""
    for path in root.glob("room_test/*.png"):
        write_depth(path, (np.array(Image.open(path)) * 0.256).astype(np.uint16))


def in_8_bits(root: Path) -> None:
    write_depth(root / DEPTH, (depth_of(root) // 40).astype(np.uint8))


def in_colours(root: Path) -> None:
    Image.open(root / IMAGE).save(root / DEPTH)


def without_depth(root: Path) -> None:
    write_depth(root / DEPTH, np.zeros((HEIGHT, WIDTH), np.uint16))


def with_depth_outside_of_the_box_only(root: Path) -> None:
    depth = depth_of(root)
    top, bottom, left, right = scaled_box(EIGEN_BOX, HEIGHT, WIDTH)
    depth[top:bottom, left:right] = 0
    write_depth(root / DEPTH, depth)


def not_measured_is_the_largest_number(root: Path) -> None:
    depth = depth_of(root)
    write_depth(root / DEPTH, np.where(depth == 0, 65535, depth).astype(np.uint16))


def beyond_ten_metres_only(root: Path) -> None:
    write_depth(root / DEPTH, np.full((HEIGHT, WIDTH), 10_000, np.uint16))


def of_another_size(root: Path) -> None:
    write_depth(root / DEPTH, depth_of(root)[:-1])


def cut_off(root: Path) -> None:
    content = (root / DEPTH).read_bytes()
    (root / DEPTH).write_bytes(content[: len(content) // 2])


def no_depth_map(root: Path) -> None:
    (root / DEPTH).unlink()


def no_image(root: Path) -> None:
    (root / IMAGE).unlink()


def no_list(root: Path) -> None:
    (root / "nyu_test.txt").unlink()


def empty_list(root: Path) -> None:
    (root / "nyu_test.txt").write_text("\n")


def change_list(root: Path, old: str, new: str) -> None:
    path = root / "nyu_test.txt"
    path.write_text(path.read_text().replace(old, new))


def no_focal_length(root: Path) -> None:
    change_list(root, " 518.8579", "")


def no_depth(root: Path) -> None:
    change_list(root, DEPTH, "None")


def depth_of_floats(root: Path) -> None:
    Image.fromarray(depth_of(root) / np.float32(1000)).save((root / DEPTH).with_suffix(".tiff"))
    change_list(root, DEPTH, DEPTH.replace(".png", ".tiff"))


def focal_length_of_words(root: Path) -> None:
    change_list(root, "518.8579", "wide")


def path_outside(root: Path) -> None:
    change_list(root, "room_test/rgb_00001", "../room_test/rgb_00001")


def image_twice(root: Path) -> None:
    change_list(root, "rgb_00000", "rgb_00001")


def trained_image(root: Path) -> None:
    change_list(root, "room_test/rgb_00001.jpg room_test", "room_train/rgb_00001.jpg room_train")


@pytest.mark.parametrize(
    ("damage", "message"),
    [
        (in_metres, f"show nothing farther than 100 mm, as if they held metres: {DEPTH}; multiply them by 1000"),
        (all_in_centimetres, "nyu_test.txt: half of the depth maps have a median depth of"),
        (all_as_kitti, "nyu_test.txt: half of the depth maps have a median depth of"),
        (all_in_tenths, "nyu_train.txt: half of the depth maps have a median depth of"),
        (in_8_bits, f"do not have 16 bits per pixel, which millimetres need: {DEPTH}"),
        (in_colours, f"not one number per pixel: {DEPTH}"),
        (without_depth, f"no valid depth in the part and range that are scored: {DEPTH}"),
        (with_depth_outside_of_the_box_only, f"no valid depth in the part and range that are scored: {DEPTH}"),
        (beyond_ten_metres_only, f"no valid depth in the part and range that are scored: {DEPTH}"),
        (not_measured_is_the_largest_number, f"as other data sets mark what was not measured: {DEPTH}; write 0 there"),
        (of_another_size, f"differ in size from their depth maps: {IMAGE}"),
        (cut_off, f"cut off before their end: {DEPTH}"),
        (no_depth_map, f"lacks depth maps that nyu_test.txt names: {DEPTH}; get them from https://"),
        (no_image, f"lacks images that nyu_test.txt names: {IMAGE}; get them from https://"),
        (
            no_list,
            "has no nyu_test.txt; get it from https://github.com/cleinc/bts, where it is nyudepthv2_test_files_with_gt.txt",
        ),
        (no_depth, f"nyu_test.txt names images without a depth map (`None`): {IMAGE}; take them off the list"),
        (
            depth_of_floats,
            "nyu_test.txt names depth maps that are not PNG: room_test/sync_depth_00001.tiff; make PNG of 16 bits",
        ),
        (empty_list, "nyu_test.txt is empty"),
        (no_focal_length, "has lines other than `image depth focal-length`"),
        (focal_length_of_words, "has lines other than `image depth focal-length`"),
        (path_outside, "has lines other than `image depth focal-length`, with paths below"),
        (image_twice, f"nyu_test.txt names images more than once: {IMAGE}"),
        (trained_image, "images are in both nyu_train.txt and nyu_test.txt: room_train/rgb_00001.jpg"),
    ],
    ids=lambda value: getattr(value, "__name__", ""),
)
def test_wrong_data_are_one_line_before_anything_runs(nyu: Path, damage: Callable[[Path], None], message: str) -> None:
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
