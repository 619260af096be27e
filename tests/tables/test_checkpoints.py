"""The table of published checkpoints: whole, and in terms of what exists here."""

import re
from collections.abc import Callable
from pathlib import Path
from urllib.parse import urlsplit

import pytest

from backbones.layouts import FORMATS
from tables.checkpoints import CHECKPOINTS_FILE, PublishedCheckpoint, read_checkpoints
from tables.layout import LAYOUTS
from tables.reference import read_reference

ROWS = read_checkpoints()


@pytest.mark.parametrize("row", ROWS.values(), ids=ROWS)
def test_row(row: PublishedCheckpoint) -> None:
    assert re.fullmatch(r"[a-z0-9_]+", row.name)
    assert row.source
    assert urlsplit(row.address).scheme == "https"
    assert row.branch in FORMATS[row.format].branches
    assert re.fullmatch(r"([0-9a-f]{6,32})?", row.md5)
    assert Path(row.file_name).name == row.file_name != f"{row.name}.safetensors"


def test_every_row_of_the_main_table_has_an_address() -> None:
    published = {(row.descriptors["method"], row.descriptors["backbone"]) for row in read_reference(LAYOUTS[0])}
    assert published <= {(row.method, row.backbone) for row in ROWS.values()}


def test_file_names_do_not_collide() -> None:
    assert len({row.file_name for row in ROWS.values()}) == len(ROWS)


def test_facts_written_down_a_second_time() -> None:
    assert {row.md5 for row in ROWS.values() if row.md5} == {"a04e12f8", "59fd9945", "8cad7c", "b8b06e"}
    non_commercial = {row.method for row in ROWS.values() if row.licence.startswith("CC-BY-NC")}
    assert non_commercial == {"MoCo-v2", "SwAV", "ReSim", "MoCo-v3", "MAE"}
    assert {row.licence for row in ROWS.values() if row.method == "DenseCL"} == {"GPL-3.0"}
    assert {row.licence for row in ROWS.values() if row.method == "DINOv3"} == {"DINOv3 License"}


def test_google_drive_pages_are_no_files() -> None:
    row = ROWS["selfpatch_vit_small_200ep"]
    assert row.download_address.startswith(
        "https://drive.usercontent.google.com/download?id=19eeQrK-nl4B9ksFQ_QnewGHVKYDQF4Yw&"
    )
    assert ROWS["moco_v2_r50_800ep"].download_address == ROWS["moco_v2_r50_800ep"].address


def test_architecture() -> None:
    row = ROWS["moco_v3_vit_small_300ep"]
    assert row.is_architecture("ViT-S/16")
    assert row.is_architecture("ViT-S/16, 12 heads")
    assert not row.is_architecture("ViT-S/8")
    assert not row.is_architecture("Swin-T")


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda text: text.replace("md5", "sha1", 1), "header must be name,method"),
        (lambda text: text + "one,two\n", f"line {len(ROWS) + 2}: 2 cells, wanted 13"),
        (lambda text: text + text.splitlines()[1] + "\n", f"line {len(ROWS) + 2}: a second row called moco_v2_r50_800ep"),
    ],
)
def test_damaged_table(tmp_path: Path, edit: Callable[[str], str], message: str) -> None:
    path = tmp_path / "checkpoints.csv"
    path.write_text(edit(CHECKPOINTS_FILE.read_text(encoding="utf-8")), encoding="utf-8")
    with pytest.raises(ValueError, match=message):
        read_checkpoints(path)
    with pytest.raises(ValueError, match="no such reference table"):
        read_checkpoints(tmp_path / "absent.csv")
