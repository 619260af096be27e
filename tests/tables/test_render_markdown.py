import re
from collections.abc import Callable
from pathlib import Path

import pytest

from tables.make import render_all

Write = Callable[..., Path]


def _page(runs: Path) -> str:
    return render_all(runs)["tables.md"]


def _measured_cells(page: str) -> list[list[str]]:
    lines = [line for line in page.splitlines() if line.startswith("| measured |")]
    return [[cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in lines]


def test_every_line_of_a_table_has_as_many_cells_as_its_header(runs: Path, write: Write) -> None:
    write("pipe|tick`break\nname", "davis", folder="odd/davis")
    width = 0
    for line in _page(runs).splitlines():
        cells = len(re.split(r"(?<!\\)\|", line)) if line.startswith("|") else 0
        assert cells in (0, width) or width == 0, line
        width = cells


def test_published_figures_stand_bare(runs: Path) -> None:
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
    for cells in _measured_cells(page):
        figures = [cell for cell in cells if "<sup>" in cell]
        assert figures
        for figure in figures:
            assert re.fullmatch(r"\*\[\d+\.\d\]\*<sup>[123]</sup>", figure)
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


def test_deviations_are_spelled_out(runs: Path, write: Write) -> None:
    write("one", "segmentation", deviations={"iterations": [40000, 20], "crop": [[512, 512], [64, 64]]})
    assert "with `crop` `[64, 64]` instead of `[512, 512]`, `iterations` `20` instead of `40000`. Seed 0." in _page(runs)


def test_missing_values_and_tasks_look_different(runs: Path, write: Write) -> None:
    write("one", "segmentation", values={"mIoU": float("nan")})
    (cells,) = _measured_cells(_page(runs))
    assert cells[5:11] == ["–"] * 6
    assert cells[11] == "n/a<sup>1</sup>"
    assert cells[14:] == ["–"] * 3


def test_the_backbones_are_listed_with_their_checkpoints(runs: Path, write: Write) -> None:
    write("one", "davis", sha256="abcdef0123456789" * 4, epoch=100)
    assert "| `one` | ViT-Ti/16 | `one.pth` | `own` | `teacher` | 100 | – | `abcdef0123456789` |" in _page(runs)
