"""The CSV files, the Markdown page and LaTeX, which is compiled if an engine is installed."""

import json
import re
import shutil
import subprocess
from pathlib import Path

import pytest

from tables.latex import MACROS, escape
from tables.make import TablesConfig, make_tables
from tables.rows import VERDICTS, Status
from tests.tables.conftest import NO_BENCHMARK_NUMBERS, WriteResult, csv_rows, render_all

ODD = r"50%_of #1 & {x}^2~\y $z$ <a|b> ±"


def _page(runs: Path) -> str:
    return render_all(runs)["tables.md"]


def _measured_cells(page: str) -> list[list[str]]:
    lines = [re.split(r"(?<!\\)\|", line)[1:-1] for line in page.splitlines() if line.startswith("| measured |")]
    return [[cell.strip() for cell in cells] for cells in lines]


def test_values_keep_precision_and_odd_names_their_cell_and_a_missing_value_is_no_task_that_was_not_run(
    runs: Path, write: WriteResult
) -> None:
    name, deviations = 'a,"b"\nc|tick`d', {"topk": [5, 7], "b": [[1], 'x,"y"']}
    write(name, "davis", folder="odd/davis", values={"J&F-Mean": 100 / 3}, coverage="subset", deviations=deviations)
    write("one", "segmentation", values={"mIoU": float("nan")})
    assert [csv_rows(runs, table)[-1]["method"] for table in ("components", "compatibility")] == [name] * 2
    odd, one = csv_rows(runs, "main")[-2:]
    assert (odd["method"], float(odd["davis_jf_mean"]), odd["davis_jf_mean_status"]) == (name, 100 / 3, "measured-subset")
    assert json.loads(odd["davis_deviations"]) == deviations
    assert (one["ade20k_miou"], one["ade20k_miou_status"]) == ("", "measured")
    odd_cells, cells = _measured_cells(_page(runs).split("## Components")[0])
    assert len(odd_cells) == len(cells) == 5 + 12
    assert (cells[5:11], cells[11], cells[14:]) == (["–"] * 6, "n/a<sup>2</sup>", ["–"] * 3)


@pytest.mark.parametrize("status", NO_BENCHMARK_NUMBERS)
def test_what_is_no_benchmark_number_is_bracketed_in_every_cell_and_explained(
    runs: Path, write: WriteResult, status: Status
) -> None:
    for task in ("davis", "detection", "segmentation"):
        write("one", task, **NO_BENCHMARK_NUMBERS[status])
    page = _page(runs)
    values = [[cell for cell in cells if "<sup>" in cell] for cells in _measured_cells(page)]
    assert [len(of_row) for of_row in values] == [12, 1, 1]
    assert all(re.fullmatch(r"\*\[\d+\.\d\]\*<sup>[123]</sup>", value) for of_row in values for value in of_row)
    notes = re.findall(r"^(\d)\. `one/(\w+)/result.json`: (.+)$", page, flags=re.MULTILINE)
    assert [(number, task) for number, task, _ in notes] == [("1", "davis"), ("2", "detection"), ("3", "segmentation")]
    assert all(text.startswith(f"**{VERDICTS[status]}**") for _, _, text in notes)


def test_a_benchmark_number_stands_plain_with_a_note(runs: Path, write: WriteResult) -> None:
    write("one", "davis", values={"J&F-Mean": 61.76})
    page = _page(runs)
    assert "| <u>61.8</u><sup>1</sup> |" in page
    assert (
        "1. `one/davis/result.json`: whole benchmark, published protocol. Tested on DAVIS 2017 val, whole: 30 items. "
        "Protocol `davis-2017-label-propagation` version 1 as published. Seed 0." in page
    )
    assert "*[" not in page.split("## Main results")[1]


@pytest.fixture
def odd_results(write: WriteResult) -> None:
    write(ODD, "davis", folder="odd/davis", coverage="sample")
    for seed in (0, 1):
        write("mine", "segmentation", folder=f"mine/{seed}", seed=seed, deviations={"crop": [512, 64]})
    write("mine", "detection", coverage="subset")
    write("mine", "classification", values={"10-NN top-1": float("nan")}, intervals={"20-NN top-1": [1.0, 2.0]})


def test_special_characters_print_themselves() -> None:
    assert escape(ODD) == (
        r"50\%\_of \#1 \& \{x\}\^{}2\~{}\textbackslash{}y \ensuremath{\mathdollar}z\ensuremath{\mathdollar} "
        r"\textless{}a\textbar{}b\textgreater{} \ensuremath{\pm}"
    )
    assert escape("two\nlines\tand  more") == "two lines and more"


@pytest.mark.usefixtures("odd_results")
def test_every_table_is_well_formed_and_says_what_a_value_is_worth(runs: Path) -> None:
    files = render_all(runs, "DINO")
    known = set(re.findall(r"\\newcommand\{(\\\w+)\}", MACROS))
    tables = {name: text for name, text in files.items() if name.endswith(".tex") and name not in ("tables.tex", "macros.tex")}
    inputs = {f"{name}.tex" for name in re.findall(r"\\input\{(\w+)\}", files["tables.tex"])}
    assert inputs == set(tables) - {"davis_2016.tex"} | {"macros.tex"}
    for name, text in tables.items():
        bare = re.sub(r"\\[{}&%#$_]", " ", text)
        assert bare.count("{") == bare.count("}"), name
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
    shown = ("Published{\\pbBest{42.1}}", "Sample{10.0}", "Subset{10.0}", "Deviating{\\pbSpread{10.0}{0.0}{2}}")
    assert [one for one in shown if f"\\pb{one}" not in files["main.tex"]] == []
    assert not re.search(r"\\pb(Sample|Subset|Deviating)\{\\pb(Best|Second)", files["main.tex"])
    assert r"\pbMeasured{n/a}" in files["classification.tex"]


def test_descriptors_that_no_row_states_are_left_out(runs: Path, write: WriteResult) -> None:
    write("one", "davis", protocol="davis-2016-label-propagation", epoch=-1)
    assert "\nmethod & backbone & (J\\&F)m & Jm & Fm \\\\\n" in render_all(runs)["davis_2016.tex"]


@pytest.mark.usefixtures("odd_results")
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_the_document_compiles(runs: Path, tmp_path: Path) -> None:
    make_tables(TablesConfig(runs=runs, output=tmp_path / "out", baseline="DINO"))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    finished = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-2000:]
    assert (tmp_path / "out/tables.pdf").stat().st_size > 10_000
