"""The CSV files, the Markdown page and LaTeX, which is compiled where an engine is installed."""

import csv
import io
import json
import re
import shutil
import subprocess
from collections.abc import Callable
from pathlib import Path

import pytest

from tables.latex import MACROS, escape
from tables.make import TablesConfig, make_tables, render_all

Write = Callable[..., Path]
ODD = r"50%_of #1 & {x}^2~\y $z$ <a|b> ±"


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


@pytest.fixture
def odd_results(write: Write) -> None:
    write(ODD, "davis", folder="odd/davis", coverage="sample")
    for seed in (0, 1):
        write("mine", "segmentation", folder=f"mine/{seed}", seed=seed, deviations={"crop": [512, 64]})
    write("mine", "detection", coverage="subset")
    write("mine", "classification", values={"10-NN top-1": float("nan")}, intervals={"20-NN top-1": [1.0, 2.0]})


def _tables(files: dict[str, str]) -> dict[str, str]:
    return {name: text for name, text in files.items() if name.endswith(".tex") and name not in ("tables.tex", "macros.tex")}


def test_special_characters_print_themselves() -> None:
    assert escape(ODD) == (
        r"50\%\_of \#1 \& \{x\}\^{}2\~{}\textbackslash{}y \ensuremath{\mathdollar}z\ensuremath{\mathdollar} "
        r"\textless{}a\textbar{}b\textgreater{} \ensuremath{\pm}"
    )
    assert escape("two\nlines\tand  more") == "two lines and more"


@pytest.mark.usefixtures("odd_results")
def test_every_table_is_well_formed(runs: Path) -> None:
    files = render_all(runs, "DINO")
    known = set(re.findall(r"\\newcommand\{(\\\w+)\}", MACROS))
    tables = _tables(files)
    assert {f"{name}.tex" for name in re.findall(r"\\input\{(\w+)\}", files["tables.tex"])} == (
        set(tables) - {"davis_2016.tex"} | {"macros.tex"}
    )
    for name, text in tables.items():
        bare = re.sub(r"\\[\\{}&%#$_]", lambda match: " " if match[0] != r"\\" else match[0], text)
        assert bare.count("{") == bare.count("}"), name
        depth = 0
        for character in bare:
            depth += {"{": 1, "}": -1}.get(character, 0)
            assert depth >= 0
        opened = re.findall(r"\\begin\{(\w+)\}", text)
        assert opened == list(reversed(re.findall(r"\\end\{(\w+)\}", text))) == ["table", "tabular"]
        (columns,) = re.findall(r"\\begin\{tabular\}\{([lr]+)\}", text)
        lines = [line for line in bare.splitlines() if line.endswith(r"\\")]
        assert len(lines) >= 2
        for line in lines:
            spans = sum(int(span) - 1 for span in re.findall(r"\\multicolumn\{(\d+)\}", line))
            assert line.count("&") + spans + 1 == len(columns), line
        assert set(re.findall(r"\\pb\w+", text)) <= known
        assert not re.search(r"(?<!\\)[#$^~]|(?<!\\)_", text.replace(r"\resizebox", "")), name
        # A comment ends a line only where a line's end must not become a space.
        assert all(
            re.search(r"(\{!\}\{%|\\end\{tabular\}%)$", line) for line in text.splitlines() if re.search(r"(?<!\\)%", line)
        )


@pytest.mark.usefixtures("odd_results")
def test_what_a_value_is_worth_can_be_seen(runs: Path) -> None:
    text = render_all(runs)["main.tex"]
    assert r"\pbPublished{\pbBest{42.1}}" in text
    assert r"\pbPublished{\pbSecond{41.1}}" in text
    assert r"\pbSample{10.0}" in text
    assert r"\pbSubset{10.0}" in text
    assert r"\pbDeviating{\pbSpread{10.0}{0.0}{2}}" in text
    assert not re.search(r"\\pb(Sample|Subset|Deviating)\{\\pb(Best|Second)", text)
    assert r"\pbMeasured{n/a}" in render_all(runs)["classification.tex"]


def test_descriptors_that_no_row_states_are_left_out(runs: Path, write: Write) -> None:
    write("one", "davis", protocol="davis-2016-label-propagation", epoch=-1)
    assert "\nmethod & backbone & (J\\&F)m & Jm & Fm \\\\\n" in render_all(runs)["davis_2016.tex"]


@pytest.mark.usefixtures("odd_results")
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_the_document_compiles(runs: Path, tmp_path: Path) -> None:
    make_tables(TablesConfig(runs=runs, output=tmp_path / "out", baseline="DINO"))
    finished = subprocess.run(
        ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"],
        cwd=tmp_path / "out",
        capture_output=True,
        text=True,
        check=False,
    )
    assert finished.returncode == 0, finished.stdout[-2000:]
    assert (tmp_path / "out/tables.pdf").stat().st_size > 10_000
