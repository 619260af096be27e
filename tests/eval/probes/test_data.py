"""The splits of PASCAL VOC 2012, Cityscapes and COCO-Stuff, and what is wrong with them, named before anything runs."""

import re
import shutil
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from eval.probes.data import VOID, check_splits
from eval.probes.sets import ADE20K, CITYSCAPES, COCO_STUFF, VOC2012, examine, find_set
from eval.tasks import TASKS
from tests.eval.probe_sets import HEIGHT, WIDTH, make_cityscapes, make_coco_stuff, make_voc

TRAIN_IDS = "gtFine/val/munster/munster_000001_000019_gtFine_labelTrainIds.png"


@pytest.fixture
def voc(tmp_path: Path) -> Path:
    return make_voc(tmp_path / "VOC2012")


@pytest.fixture
def cityscapes(tmp_path: Path) -> Path:
    return make_cityscapes(tmp_path / "cityscapes")


def problems(root: Path, deep: bool = False) -> list[str]:
    return [str(finding) for finding in examine(root, deep, 1) if finding.is_problem]


def test_splits_are_what_the_lists_name(voc: Path, cityscapes: Path) -> None:
    assert find_set(voc) is VOC2012
    splits = check_splits(VOC2012, voc, ["trainaug", "val"])
    assert list(splits["trainaug"].pairs) == [f"2007_{number:06d}" for number in range(4)]
    assert splits["trainaug"].pairs["2007_000001"][1] == voc / "SegmentationClassAug/2007_000001.png"
    described = splits["val"].describe()
    assert (described.name, described.split, described.num_items, described.coverage) == ("PASCAL VOC 2012", "val", 2, "subset")
    assert find_set(cityscapes) is CITYSCAPES
    splits = check_splits(CITYSCAPES, cityscapes, ["train", "val"])
    assert list(splits["val"].pairs) == ["munster_000000_000019", "munster_000001_000019"]
    for root in (voc, cityscapes):
        assert problems(root) == problems(root, deep=True) == []


def test_labels_are_read_as_classes(tmp_path: Path) -> None:
    path = tmp_path / "a.png"
    Image.fromarray(np.array([[0, 1, 150]], np.uint16)).save(path)  # 16 bits, whose numbers fit
    assert ADE20K.read_labels(path, (3, 1)).tolist() == [[0, 1, 150]]
    assert ADE20K.read_classes(path, (3, 1)).tolist() == [[VOID, 0, 149]]
    Image.fromarray(np.array([[0, 20, 255]], np.uint8)).save(path)
    assert VOC2012.read_classes(path, (3, 1)).tolist() == [[0, 20, 255]]


@pytest.mark.parametrize(
    ("labels", "message"),
    [
        (np.array([[0, 21, 255]], np.uint8), "labels 21; PASCAL VOC 2012's are 0 to 20 and 255"),
        (np.array([[0, 300, 1]], np.uint16), "labels 300;"),
        (np.zeros((3, 3), np.uint8), "label map of shape (3, 3) for an image of 1 x 3"),
        (np.zeros((1, 3, 3), np.uint8), "label map of shape (1, 3, 3)"),
    ],
)
def test_labels_of_other_numbers_or_sizes_are_refused(labels: np.ndarray, message: str, tmp_path: Path) -> None:
    Image.fromarray(labels).save(tmp_path / "a.png")
    with pytest.raises(ValueError, match=r"a\.png") as error:
        VOC2012.read_labels(tmp_path / "a.png", (3, 1))
    assert message in str(error.value)
    (tmp_path / "a.png").write_bytes(b"no image")
    with pytest.raises(ValueError, match=r"a\.png: not a readable label map"):
        VOC2012.read_labels(tmp_path / "a.png", (3, 1))


def test_a_voc_without_the_augmented_labels_says_where_to_get_them(voc: Path) -> None:
    shutil.rmtree(voc / "SegmentationClassAug")
    with pytest.raises(ValueError, match=r"has no SegmentationClassAug; get .*https://github\.com"):
        check_splits(VOC2012, voc, ["trainaug", "val"])
    (voc / "ImageSets/Segmentation/trainaug.txt").unlink()
    with pytest.raises(ValueError, match=r"has no SegmentationClassAug and no ImageSets/Segmentation/trainaug\.txt;"):
        check_splits(VOC2012, voc, ["trainaug", "val"])
    assert list(check_splits(VOC2012, voc, ["train", "val"])) == ["train", "val"]
    assert problems(voc) == []
    assert any("no SegmentationClassAug" in finding.text for finding in examine(voc, False, 1))
    needed = [str(finding) for finding in TASKS["retrieval_segmentation"].load("data", "examine")(voc, False, 1)]
    assert any("no SegmentationClassAug and no ImageSets/Segmentation/trainaug.txt; get" in one for one in needed)


def test_listed_images_that_are_absent_are_named(voc: Path) -> None:
    (voc / "SegmentationClass/2007_000005.png").unlink()
    (voc / "JPEGImages/2007_000004.jpg").unlink()
    with pytest.raises(ValueError, match=r"JPEGImages lacks images .* 2007_000004; get it") as error:
        check_splits(VOC2012, voc, ["train", "val"])
    assert "SegmentationClass lacks images that ImageSets/Segmentation/val.txt names: 2007_000005" in str(error.value)


@pytest.mark.parametrize(
    ("text", "named"),
    [
        ("", ""),
        ("2007_000004\n2007_000004\n", ": 2007_000004"),
        ("/JPEGImages/a.jpg /SegmentationClassAug/a.png\n", ": /JPEGImages/a.jpg /SegmentationClassAug/a.png"),
        ("2007_000004\n../2007_000005\n", ": ../2007_000005"),
    ],
)
def test_lists_of_another_form_are_refused(text: str, named: str, voc: Path) -> None:
    (voc / "ImageSets/Segmentation/val.txt").write_text(text)
    message = (
        f"val.txt must have at least one line, each the name of an image without folder and ending, none twice{named}; get"
    )
    with pytest.raises(ValueError, match=re.escape(message)):
        check_splits(VOC2012, voc, ["train", "val"])


def test_a_list_that_is_no_text_is_a_finding_so_that_the_data_doctor_goes_on(voc: Path) -> None:
    (voc / "ImageSets/Segmentation/val.txt").write_text("2007_000004\n", encoding="utf-16")
    (found,) = problems(voc)
    assert "val.txt: not a text file in UTF-8" in found
    assert "; get it from http://host.robots.ox.ac.uk/pascal/VOC" in found


def test_training_on_the_images_of_the_test_is_refused(voc: Path, cityscapes: Path) -> None:
    """There are lists `trainaug` that contain VOC's validation images."""
    (voc / "ImageSets/Segmentation/train.txt").write_text("2007_000000\n2007_000004\n")
    with pytest.raises(ValueError, match="images are in both train and val: 2007_000004; test on other images"):
        check_splits(VOC2012, voc, ["train", "val"])
    for part in ("leftImg8bit", "gtFine"):
        shutil.rmtree(cityscapes / part / "val")
        (cityscapes / part / "val").symlink_to("train")
    with pytest.raises(ValueError, match="gtFine/train and gtFine/val are the same folder"):
        check_splits(CITYSCAPES, cityscapes, ["train", "val"])


def test_cityscapes_with_raw_label_ids_is_refused(cityscapes: Path) -> None:
    """In files of their own name, and in those of the train ids."""
    path = cityscapes / TRAIN_IDS
    shutil.copy(path, path.with_name(path.name.replace("TrainIds", "Ids")))
    Image.fromarray(np.full((HEIGHT, WIDTH), 26, np.uint8)).save(path)
    (found,) = problems(cityscapes)
    assert f"labels other than 0 to 18 and 255: {TRAIN_IDS} (26); they are raw label ids" in found
    path.unlink()
    with pytest.raises(ValueError, match=r"raw label ids .* 19 train ids .*: munster_000001_000019; make them with"):
        check_splits(CITYSCAPES, cityscapes, ["train", "val"])


def test_cityscapes_without_label_maps_or_folders_is_refused(cityscapes: Path) -> None:
    (cityscapes / TRAIN_IDS).unlink()
    with pytest.raises(ValueError, match=r"lacks .*labelTrainIds\.png of images: munster_000001_000019; get them from https"):
        check_splits(CITYSCAPES, cityscapes, ["train", "val"])
    shutil.rmtree(cityscapes / "leftImg8bit/train")
    with pytest.raises(ValueError, match=r"has no folder leftImg8bit/train .*; get it from https://www\.cityscapes"):
        check_splits(CITYSCAPES, cityscapes, ["train", "val"])


@pytest.mark.parametrize("deep", [False, True])
def test_damaged_files_resized_ones_and_void_alone_are_found(deep: bool, voc: Path) -> None:
    image = voc / "JPEGImages/2007_000004.jpg"
    image.write_bytes(image.read_bytes()[:-30])
    Image.fromarray(np.zeros((7, 5), np.uint8)).save(voc / "SegmentationClass/2007_000001.png")
    Image.fromarray(np.zeros((HEIGHT, WIDTH, 3), np.uint8)).save(voc / "SegmentationClass/2007_000002.png")
    for number in (4, 5):
        Image.fromarray(np.full((HEIGHT, WIDTH), VOID, np.uint8)).save(voc / f"SegmentationClass/2007_{number:06d}.png")
    text = "\n".join(problems(voc, deep))
    assert "2007_000004.jpg" in text
    assert f"JPEGImages/2007_000001.jpg ({WIDTH} x {HEIGHT} instead of 5 x 7)" in text
    assert "colour images, not one number per pixel: SegmentationClass/2007_000002.png" in text
    assert "SegmentationClass: no label map that is used shows a class, only 255 (void)" in text


def test_other_folders_are_no_data_set_and_the_one_above_a_set_names_it(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match="not a known data set; --data is"):
        find_set(tmp_path)
    assert problems(tmp_path) == [str(finding) for finding in examine(tmp_path, False, 1)]
    assert "holds none of the data sets; --data is" in problems(tmp_path)[0]
    voc = make_voc(tmp_path / "VOCdevkit/VOC2012")
    for above in (voc.parent, tmp_path):
        with pytest.raises(ValueError, match=f"{above}: not a known data set; {voc} is one"):
            find_set(above)
    with pytest.raises(ValueError, match="no such folder; --data is"):
        find_set(tmp_path / "nowhere")
    for name, address in (
        ("cityscapes", r"https://www\.cityscapes-dataset\.com"),
        ("cocostuff", "http://calvin.inf.ed.ac.uk/"),
    ):
        with pytest.raises(ValueError, match=f"{name}: no such folder; get .* from {address}"):
            find_set(tmp_path / name)


@pytest.mark.parametrize("deep", [False, True])
def test_masks_whose_numbers_changed_on_a_way_through_colours_are_refused(deep: bool, voc: Path) -> None:
    """VOC's files show their numbers by a palette; a program that reads colours and writes a palette of its own renumbers them."""
    path = voc / "SegmentationClass/2007_000004.png"
    numbers = np.array(Image.open(path))
    palette = np.zeros((256, 3), np.uint8)
    palette[[15, 255]] = (192, 128, 128), (224, 224, 192)
    shown = Image.fromarray(numbers).convert("P")
    shown.putpalette(palette.ravel().tolist())
    shown.save(path)
    assert problems(voc, deep) == []
    assert (VOC2012.read_labels(path, (WIDTH, HEIGHT)) == numbers).all()
    shown.convert("RGB").quantize(8).save(path)
    (found,) = problems(voc, deep)
    assert "2007_000004.png (number " in found
    assert "so that its numbers are not classes" in found
    with pytest.raises(ValueError, match=r"2007_000004\.png: not a readable label map \(number "):
        VOC2012.read_labels(path, (WIDTH, HEIGHT))


def test_cityscapes_suffixes_have_any_case_and_an_image_has_one_city(cityscapes: Path) -> None:
    path = cityscapes / TRAIN_IDS
    path.rename(path.with_suffix(".PNG"))
    assert problems(cityscapes) == []
    shutil.copytree(path.parent, path.parent.with_name("munster (copy)"))
    (found,) = problems(cityscapes)
    assert (
        "has images of val in two folders of cities: munster_000000_000019, munster_000001_000019; remove one of each" in found
    )


@pytest.mark.parametrize("deep", [False, True])
def test_coco_stuff_has_27_coarse_classes(deep: bool, tmp_path: Path) -> None:
    root = make_coco_stuff(tmp_path / "cocostuff")
    assert find_set(root) is COCO_STUFF
    assert problems(root, deep) == []
    splits = check_splits(COCO_STUFF, root, ["train2017", "val2017"])
    image, labels = splits["val2017"].pairs["000000000004"]
    assert set(np.unique(COCO_STUFF.read_classes(labels, Image.open(image).size)).tolist()) == {9, 22, VOID}
    assert [COCO_STUFF.classes[number] for number in (9, 22)] == ["person", "plant"]
    # As labels.txt of nightrome/cocostuff numbers them, from 0: giraffe, book, banner, wall-brick, wood.
    coarse = [COCO_STUFF.classes[COCO_STUFF.class_of_number[number]] for number in (24, 83, 91, 170, 181)]
    assert (coarse, len(COCO_STUFF.class_of_number)) == (["animal", "indoor", "textile", "wall", "solid"], 182)
    Image.fromarray(np.full((HEIGHT, WIDTH), 182, np.uint8)).save(labels)
    assert "labels other than 0 to 181 and 255: annotations/val2017/000000000004.png (182)" in problems(root, deep)[0]
