"""The CSV files and the Markdown page."""

import csv
import io
import json
import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tables.make import render_all

Write = Callable[..., Path]


def _rows(runs: Path, name: str = "main") -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(render_all(runs)[f"{name}.csv"]), strict=True))


def _page(runs: Path) -> str:
    return render_all(runs)["tables.md"]


def _cells(line: str) -> list[str]:
    return [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]]


def _measured_cells(page: str) -> list[list[str]]:
    return [_cells(line) for line in page.splitlines() if line.startswith("| measured |")]


def test_published_values_keep_their_digits_and_say_so(runs: Path) -> None:
    rows = _rows(runs)
    assert rows[0]["davis_j_mean"] == "56.0"
    assert {text for row in rows for key, text in row.items() if key.endswith("_status")} == {"published"}
    origins = [text for row in rows for key, text in row.items() if key.endswith(("_items", "_deviations", "_result"))]
    assert set(origins) == {""}


def test_measured_values_keep_full_precision_standing_and_origin(runs: Path, write: Write) -> None:
    value = 100 / 3
    write("one", "davis", values={"J&F-Mean": value}, coverage="subset", deviations={"topk": [5, 7], "b": [[1], 'x,"y"']})
    row = _rows(runs)[-1]
    assert float(row["davis_jf_mean"]) == value
    assert row["davis_jf_mean_status"] == "measured-subset"
    assert row["davis_items"] == "2"
    assert row["davis_result"] == "one/davis/result.json"
    assert json.loads(row["davis_deviations"]) == {"topk": [5, 7], "b": [[1], 'x,"y"']}
    assert row["source"] == "measured here"
    assert len(row["backbone_sha256"]) == 64
    assert (row["coco_box_ap"], row["coco_box_ap_status"], row["coco_result"]) == ("", "", "")


def test_a_missing_value_is_no_task_that_was_not_run(runs: Path, write: Write) -> None:
    write("one", "segmentation", values={"mIoU": float("nan")})
    row = _rows(runs)[-1]
    assert (row["ade20k_miou"], row["ade20k_miou_status"]) == ("", "measured")
    (cells,) = _measured_cells(_page(runs))
    assert cells[5:11] == ["–"] * 6
    assert cells[11] == "n/a<sup>1</sup>"
    assert cells[14:] == ["–"] * 3


def test_odd_names_stay_in_their_cell(runs: Path, write: Write) -> None:
    name = 'a,"b"\nc|tick`d'
    write(name, "davis", folder="odd/davis")
    assert [_rows(runs, table)[-1]["method"] for table in ("main", "components", "compatibility")] == [name] * 3
    width = 0
    for line in _page(runs).splitlines():
        cells = len(_cells(line)) if line.startswith("|") else 0
        assert cells in (0, width) or width == 0, line
        width = cells


def test_published_values_stand_bare(runs: Path) -> None:
    page = _page(runs)
    assert "| published | DINO+SelfPatch | ViT-S/16 | ImageNet-1k | 200 | **42.1** | **64.9** |" in page
    assert "| published | MoBY | ViT-S/16 | ImageNet-1k | – | <u>41.1</u> | <u>63.7</u> | <u>44.8</u> | <u>37.6</u> |" in page
    assert page.endswith("There are no results yet.\n")


@pytest.mark.parametrize(
    ("options", "verdict"),
    [
        ({"coverage": "sample"}, "**sample data: not a benchmark number**"),
        ({"coverage": "subset"}, "**part of the benchmark: not a benchmark number**"),
        ({"deviations": {"topk": [5, 7]}}, "**deviating protocol: not a benchmark number**"),
    ],
)
def test_what_is_no_benchmark_number_is_bracketed_in_every_cell_and_explained(
    runs: Path, write: Write, options: dict[str, object], verdict: str
) -> None:
    for task in ("davis", "detection", "segmentation"):
        write("one", task, **options)
    page = _page(runs)
    values = [[cell for cell in cells if "<sup>" in cell] for cells in _measured_cells(page)]
    assert [len(of_row) for of_row in values] == [12, 1, 1]
    assert all(re.fullmatch(r"\*\[\d+\.\d\]\*<sup>[123]</sup>", value) for of_row in values for value in of_row)
    notes = re.findall(r"^(\d)\. `one/(\w+)/result.json`: (.+)$", page, flags=re.MULTILINE)
    assert [(number, task) for number, task, _ in notes] == [("1", "davis"), ("2", "detection"), ("3", "segmentation")]
    assert all(text.startswith(verdict) for _, _, text in notes)


def test_a_benchmark_number_stands_plain_with_a_note(runs: Path, write: Write) -> None:
    write("one", "davis", values={"J&F-Mean": 61.76})
    page = _page(runs)
    assert "| <u>61.8</u><sup>1</sup> |" in page
    assert (
        "1. `one/davis/result.json`: whole benchmark, published protocol. Tested on DAVIS 2017 val, whole: 30 items. "
        "Protocol `davis-2017-label-propagation` version 1 as published. Seed 0." in page
    )
    assert "*[" not in page.split("## Main results")[1]


def test_deviations_and_backbones_are_spelled_out(runs: Path, write: Write) -> None:
    deviations = {"iterations": [40000, 20], "crop": [[512, 512], [64, 64]]}
    write("one", "segmentation", deviations=deviations, sha256="abcdef0123456789" * 4, epoch=100)
    page = _page(runs)
    assert "with `crop` `[64, 64]` instead of `[512, 512]`, `iterations` `20` instead of `40000`. Seed 0." in page
    assert "| `one` | ViT-Ti/16 | `one.pth` | `own` | `teacher` | 100 | – | `abcdef0123456789` |" in page
