"""The published digits, transcribed a second time, by column instead of by row; and the table of published checkpoints."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backbones import layouts
from tables.layout import COMPATIBILITY, COMPONENTS, DAVIS_2016, LAYOUTS, MAIN, UPERNET, Layout
from tables.reference import CHECKPOINTS_FILE, REFERENCE_FOLDER, PublishedRow, read_checkpoints, read_reference

MAIN_COLUMNS = {
    "coco_box_ap": "38.9 38.5 40.3 40.3 40.1 39.8 41.1 40.8 42.1",
    "coco_box_ap50": "59.2 60.4 59.9 60.6 61.0 62.6 63.7 63.4 64.9",
    "coco_box_ap75": "42.4 41.4 44.3 44.2 43.9 43.1 44.8 44.2 46.1",
    "coco_mask_ap": "35.5 35.4 36.4 36.4 36.4 37.1 37.6 37.3 38.5",
    "coco_mask_ap50": "56.2 57.0 57.0 57.5 58.0 59.6 60.3 59.9 61.3",
    "coco_mask_ap75": "37.8 37.7 39.2 38.9 38.9 39.2 39.8 39.5 40.8",
    "ade20k_miou": "35.8 35.4 37.2 36.6 37.3 35.3 39.5 38.3 41.2",
    "ade20k_aacc": "77.6 77.5 78.5 78.4 78.4 78.9 79.9 79.0 80.7",
    "ade20k_macc": "45.1 44.9 47.1 46.4 46.7 45.9 50.5 49.4 52.1",
    "davis_jf_mean": "55.5 57.4 50.7 49.3 56.7 53.5 54.7 60.7 62.7",
    "davis_j_mean": "56.0 57.6 52.6 51.2 57.0 51.2 52.0 59.1 60.7",
    "davis_f_mean": "55.0 57.3 48.9 47.3 56.4 55.9 57.3 62.4 64.7",
}
CHECKPOINTS = read_checkpoints()


def _value(rows: list[PublishedRow], **descriptors: str) -> str:
    (row,) = [row for row in rows if descriptors.items() <= row.descriptors.items()]
    return row.values["davis_jf_mean"]


def test_main_holds_the_published_digits() -> None:
    rows = read_reference(MAIN)
    methods = ["MoCo-v2", "SwAV", "DenseCL", "ReSim", "DetCo", "MoCo-v3", "MoBY", "DINO", "DINO+SelfPatch"]
    assert [row.descriptors["method"] for row in rows] == methods
    assert [row.descriptors["backbone"] for row in rows] == ["R50"] * 5 + ["ViT-S/16"] * 4
    assert {key: " ".join(row.values[key] for row in rows) for key in MAIN_COLUMNS} == MAIN_COLUMNS
    for row in rows:
        mean = (float(row.values["davis_j_mean"]) + float(row.values["davis_f_mean"])) / 2
        assert float(row.values["davis_jf_mean"]) == pytest.approx(mean, abs=0.1001)


def test_components_hold_the_published_digits() -> None:
    rows = read_reference(COMPONENTS)
    assert len(rows) == 10
    assert _value(rows, part="a") == "55.1"
    sizes = {size: _value(rows, part="b", neighbours=size, k="4", aggregation="on") for size in ("3x3", "5x5", "all")}
    assert sizes == {"3x3": "57.0", "5x5": "56.5", "all": "47.3"}
    assert [_value(rows, part="c", neighbours="3x3", k=k) for k in "1248"] == ["56.3", "56.4", "57.0", "56.5"]
    assert _value(rows, part="d", aggregation="off (average pooling)") == "51.4"
    assert _value(rows, part="d", aggregation="on") == "57.0"
    assert {row.descriptors["backbone"] for row in rows} == {"ViT-Ti/16"}
    assert {row.descriptors["pretraining_data"] for row in rows} == {"COCO"}


def test_compatibility_holds_the_published_digits() -> None:
    rows = read_reference(COMPATIBILITY)
    assert len(rows) == 9
    tiny, swin = "ViT-Ti/16", "Swin-T"
    assert _value(rows, method="MoBY", backbone=tiny) == "54.1"
    assert _value(rows, method="MoBY+SelfPatch", backbone=tiny, patch_negatives="no") == "58.4"
    assert _value(rows, method="MoBY+SelfPatch", backbone=tiny, patch_negatives="yes") == "58.9"
    assert _value(rows, method="MoBY", backbone=swin) == "50.8"
    assert _value(rows, method="MoBY+SelfPatch", backbone=swin, patch_negatives="yes") == "56.4"
    assert _value(rows, method="DINO", backbone=tiny) == "55.1"
    assert _value(rows, method="DINO+SelfPatch", backbone=tiny) == "57.0"
    assert _value(rows, method="DINO", backbone="ViT-Ti/8") == "61.6"
    assert _value(rows, method="DINO+SelfPatch", backbone="ViT-Ti/8") == "65.8"


def test_uper_net_has_two_published_values() -> None:
    rows = read_reference(UPERNET)
    assert [(row.descriptors["method"], row.values) for row in rows] == [
        ("DINO", {"upernet_miou": "42.3", "upernet_aacc": "", "upernet_macc": ""}),
        ("DINO+SelfPatch", {"upernet_miou": "43.2", "upernet_aacc": "", "upernet_macc": ""}),
    ]
    assert read_reference(DAVIS_2016) == []


@pytest.mark.parametrize("layout", LAYOUTS, ids=lambda layout: layout.name)
def test_every_row_says_where_it_is_published(layout: Layout) -> None:
    rows = read_reference(layout)
    assert bool(rows) == layout.published
    assert all("CVPR 2022" in row.source or "alinlab/SelfPatch" in row.source for row in rows)


@pytest.mark.parametrize(
    ("old", "new", "message"),
    [
        ("davis_jf_mean", "davis", "its header must be part,method"),
        (",57.0,", ",5 7.0,", r"components.csv, line 3, davis_jf_mean: '5 7.0' is not a number"),
        ("b,DINO", "b,b,DINO", r"components.csv, line 3: 12 cells, wanted 11"),
    ],
)
def test_a_spoilt_reference_is_refused(tmp_path: Path, old: str, new: str, message: str) -> None:
    text = (REFERENCE_FOLDER / "components.csv").read_text()
    (tmp_path / "components.csv").write_text(text.replace(old, new, 1))
    with pytest.raises(ValueError, match=message):
        read_reference(COMPONENTS, tmp_path)
    with pytest.raises(ValueError, match=r"main\.csv: no such reference table"):
        read_reference(MAIN, tmp_path)


def test_checkpoints_are_in_terms_of_what_exists_here() -> None:
    assert CHECKPOINTS
    for row in CHECKPOINTS.values():
        assert re.fullmatch(r"[a-z0-9_]+", row.name)
        assert row.source, row.name
        assert urlsplit(row.address).scheme == "https", row.name
        assert row.branch in layouts.LAYOUTS[row.format].branches, row.name
        assert re.fullmatch(r"([0-9a-f]{6,32})?", row.md5), row.name
        assert Path(row.file_name).name == row.file_name != f"{row.name}.safetensors"


def test_every_row_of_the_main_table_has_a_checkpoint_of_its_own_file() -> None:
    published = {(row.descriptors["method"], row.descriptors["backbone"]) for row in read_reference(MAIN)}
    assert published <= {(row.method, row.backbone) for row in CHECKPOINTS.values()}
    assert len({row.file_name for row in CHECKPOINTS.values()}) == len(CHECKPOINTS)
    row = CHECKPOINTS["moco_v3_vit_small_300ep"]  # an unusual number of heads is the same architecture
    names = ("ViT-S/16", "ViT-S/16, 12 heads", "ViT-S/8", "Swin-T")
    assert [row.is_architecture(name) for name in names] == [True, True, False, False]


def test_digests_and_licences_written_down_a_second_time() -> None:
    rows = CHECKPOINTS.values()
    assert {row.md5 for row in rows if row.md5} == {"a04e12f8", "59fd9945", "8cad7c", "b8b06e"}
    non_commercial = {row.method for row in rows if row.licence.startswith("CC-BY-NC")}
    assert non_commercial == {"MoCo-v2", "SwAV", "ReSim", "MoCo-v3", "MAE"}
    others = {(row.method, row.licence) for row in rows if row.method in ("DenseCL", "DINOv3")}
    assert others == {("DenseCL", "GPL-3.0"), ("DINOv3", "DINOv3 License")}


def test_google_drive_pages_are_no_files() -> None:
    address = CHECKPOINTS["selfpatch_vit_small_200ep"].download_address
    assert address.startswith("https://drive.usercontent.google.com/download?id=19eeQrK-nl4B9ksFQ_QnewGHVKYDQF4Yw&")
    assert CHECKPOINTS["moco_v2_r50_800ep"].download_address == CHECKPOINTS["moco_v2_r50_800ep"].address


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("md5", "sha1", 1), "header must be name,method"),
        (lambda text: text + "one,two\n", f"line {len(CHECKPOINTS) + 2}: 2 cells, wanted 13"),
        (
            lambda text: text + text.splitlines()[1] + "\n",
            f"line {len(CHECKPOINTS) + 2}: a second row called moco_v2_r50_800ep",
        ),
    ],
)
def test_a_damaged_table_of_checkpoints_is_refused(tmp_path: Path, edit: Callable[[str], str], message: str) -> None:
    path = tmp_path / "checkpoints.csv"
    path.write_text(edit(CHECKPOINTS_FILE.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_checkpoints(path)
