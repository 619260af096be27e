"""Files of folders, lists and COCO's annotations."""

import json
import os
from pathlib import Path
from typing import Any

import pytest

from pretrain.data.images import ImageFiles, find_images, images_of_coco, images_of_folder, images_of_list


def touch(folder: Path, *names: str) -> Path:
    for name in names:
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(name)
    return folder


def test_folders_at_any_depth(tmp_path: Path) -> None:
    """Sorted folder by folder: `b` before `b-2`, though `-` comes before `/`."""
    touch(tmp_path / "set", "b/2.jpg", "b/1.JPEG", "b-2/x.png", "a.webp", "notes.txt", "b/labels.json")
    images = images_of_folder(tmp_path / "set")
    assert list(images.names) == ["a.webp", "b/1.JPEG", "b/2.jpg", "b-2/x.png"]
    assert images.load(1) == b"b/1.JPEG"
    assert images.describe(1) == str(tmp_path / "set/b/1.JPEG")
    assert find_images(tmp_path / "set") == sorted((tmp_path / "set" / name) for name in images.names)


def test_links_are_followed_but_not_for_ever(tmp_path: Path) -> None:
    touch(tmp_path / "elsewhere", "1.jpg")
    touch(tmp_path / "set", "own/2.jpg")
    (tmp_path / "set/linked").symlink_to(tmp_path / "elsewhere", target_is_directory=True)
    (tmp_path / "elsewhere/round").symlink_to(tmp_path / "set", target_is_directory=True)
    assert list(images_of_folder(tmp_path / "set").names) == ["linked/1.jpg", "own/2.jpg"]


def test_missing_and_empty_folders(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"^data\.path: .*absent is not a folder"):
        images_of_folder(tmp_path / "absent")
    with pytest.raises(ValueError, match=r"^watch\.images: no image under"):
        images_of_folder(tmp_path, "watch.images")


def listed(path: Path, text: str) -> ImageFiles:
    path.write_text(text)
    return images_of_list(path)


def test_lists_keep_their_order(tmp_path: Path) -> None:
    touch(tmp_path, "a/1.jpg", "a/2.jpg", "far/3.jpg")
    images = listed(tmp_path / "list.txt", f"a/2.jpg\n\n  a/1.jpg \r\n{tmp_path}/far/3.jpg\na/2.jpg\n")
    assert list(images.names) == ["a/2.jpg", "a/1.jpg", f"{tmp_path}/far/3.jpg", "a/2.jpg"]
    assert [images.load(index) for index in range(4)] == [b"a/2.jpg", b"a/1.jpg", b"far/3.jpg", b"a/2.jpg"]


def test_mistakes_in_lists(tmp_path: Path) -> None:
    touch(tmp_path, "1.jpg")
    with pytest.raises(ValueError, match=r"absent\.txt is not a file"):
        images_of_list(tmp_path / "absent.txt")
    with pytest.raises(ValueError, match="names no image"):
        listed(tmp_path / "list.txt", "\n \n")
    with pytest.raises(ValueError, match=r"2 of the 3 images of .*list\.txt are absent, such as .*2\.jpg"):
        listed(tmp_path / "list.txt", "1.jpg\n2.jpg\nnowhere/3.jpg")
    (tmp_path / "list.txt").write_bytes(b"\xff\xd8\xff\xe0")
    with pytest.raises(ValueError, match="is no text"):
        images_of_list(tmp_path / "list.txt")


def annotations(root: Path, *names: str) -> Path:
    path = root / "annotations/instances_train2017.json"
    path.parent.mkdir(exist_ok=True)
    path.write_text(json.dumps({"images": [{"id": 7, "file_name": name} for name in names], "annotations": []}))
    return path


def test_coco_lists_its_images(tmp_path: Path) -> None:
    touch(tmp_path, *(f"train2017/{number}.jpg" for number in range(4)))
    images = images_of_coco(annotations(tmp_path, "3.jpg", "0.jpg", "2.jpg"))
    assert list(images.names) == ["0.jpg", "2.jpg", "3.jpg"]
    assert images.load(2) == b"train2017/3.jpg"


def test_mistakes_in_annotations(tmp_path: Path) -> None:
    touch(tmp_path, "train2017/1.jpg")
    with pytest.raises(ValueError, match="is not a file"):
        images_of_coco(tmp_path / "annotations/instances_val2017.json")
    with pytest.raises(ValueError, match="lists no image"):
        images_of_coco(annotations(tmp_path))
    with pytest.raises(ValueError, match=r"1 of the 2 images of .* are absent, such as .*train2017/2\.jpg"):
        images_of_coco(annotations(tmp_path, "1.jpg", "2.jpg"))
    for text in ("{", "[]", "{}", '{"images": [{"id": 1}]}', '{"images": 3}'):
        path = annotations(tmp_path)
        path.write_text(text)
        with pytest.raises(ValueError, match="is not COCO's annotations"):
            images_of_coco(path)


def test_a_folder_that_cannot_be_listed_is_an_error(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A class of ImageNet could be left out without a word."""
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        (tmp_path / name / "1.jpg").touch()
    scandir = os.scandir

    def deny(path: str) -> Any:
        if str(path).endswith("b"):
            raise PermissionError(13, "Permission denied", path)
        return scandir(path)

    monkeypatch.setattr(os, "scandir", deny)
    with pytest.raises(PermissionError, match="b"):
        images_of_folder(tmp_path)
