import re
from pathlib import Path

import pytest

from pretrain.watching.labelled import find_labelled, first_unreadable


def test_labels_follow_the_names_of_the_neighbours_classes(image_folder: Path, tmp_path: Path) -> None:
    images, classes = find_labelled(image_folder, "watch.knn_train")
    assert classes == ["class0", "class1", "class2"]
    assert [path.parent.name for path in images.paths] == [classes[label] for label in images.labels_N]
    one = tmp_path / "val" / "class2" / "deeper"
    one.mkdir(parents=True)
    (one / "x.png").write_bytes(next((image_folder / "class0").glob("*.png")).read_bytes())
    val, _ = find_labelled(tmp_path / "val", "watch.knn_val", classes)
    assert val.labels_N.tolist() == [2]


def test_mistakes_name_option_and_folder(image_folder: Path, tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"watch\.knn_train: /nowhere is not a folder"):
        find_labelled(Path("/nowhere"), "watch.knn_train")
    with pytest.raises(ValueError, match="one folder per class"):
        find_labelled(image_folder / "class0", "watch.knn_train")
    with pytest.raises(ValueError, match=r"2 classes of which there are no neighbours, such as class0"):
        find_labelled(image_folder, "watch.knn_val", ["class1"])
    (tmp_path / "empty").mkdir()
    with pytest.raises(ValueError, match=r"watch\.knn_val: no image under .*empty"):
        find_labelled(tmp_path, "watch.knn_val")


def test_a_damaged_image_is_named(image_folder: Path, tmp_path: Path) -> None:
    (tmp_path / "cat").mkdir()
    whole = next((image_folder / "class0").glob("*.png")).read_bytes()
    (tmp_path / "cat" / "cut.png").write_bytes(whole[:-40])
    (tmp_path / "cat" / "good.png").write_bytes(whole)
    images, _ = find_labelled(tmp_path, "watch.knn_train")
    assert re.match(r".*cut\.png \(.+\)", first_unreadable(images.paths, threads=2))
    assert not first_unreadable(images.paths[1:], threads=1)
