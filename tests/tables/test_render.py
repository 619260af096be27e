"""The rows of the tables, and what is written of them: CSV files, the Markdown page, and LaTeX, compiled where there is an engine."""

import dataclasses
import json
import re
import shutil
import statistics
import subprocess
from pathlib import Path

import pytest

from eval.tasks import BENCHMARKS
from tables.collect import collect
from tables.latex import MACROS, escape
from tables.layout import MAIN
from tables.make import TablesConfig, make_tables
from tables.reference import read_reference
from tables.rows import Status, build_table
from tests.tables.conftest import NO_BENCHMARK_NUMBERS, WriteResult, csv_rows, render_all

VALUES = (61.25, 63.5, 60.75)


def test_a_backbone_has_one_row_with_the_cells_of_its_tasks(runs: Path, write: WriteResult) -> None:
    write("one", "davis", values={"J&F-Mean": 60.0, "J-Mean": 59.12345678901234, "F-Mean": float("nan")}, epoch=0)
    write("two", "detection", epoch=-1)
    table = build_table(MAIN, read_reference(MAIN), collect(runs))
    assert [row.evaluated is None for row in table.rows] == [True] * 9 + [False] * 2
    one, two = table.rows[-2:]
    assert one.descriptors == {"method": "one", "backbone": "ViT-Ti/16", "pretraining_data": "", "epochs": "0"}
    texts = {key: cell.text for key, cell in one.cells.items()}
    assert texts == {"davis_jf_mean": "60.0", "davis_j_mean": "59.12345678901234", "davis_f_mean": ""}
    assert two.descriptors["epochs"] == ""
    assert list(two.cells) == [column.key for column in BENCHMARKS["coco"].columns]
    assert [row["method"] for row in csv_rows(runs, "components") if row["row"] == "measured"] == ["one"]


def test_another_head_or_year_stands_in_its_own_table(runs: Path, write: WriteResult) -> None:
    write("one", "segmentation", values={"mIoU": 40.0})
    write("one", "segmentation", folder="one/upernet", protocol="ade20k-upernet-160k", values={"mIoU": 44.0})
    write("two", "davis", protocol="davis-2016-label-propagation", epoch=-1, values={"J&F-Mean": 80.0})
    row = csv_rows(runs, "upernet")[-1]
    assert (row["method"], row["upernet_miou"], row["upernet_miou_status"]) == ("one", "44.0", "measured")
    assert csv_rows(runs, "main")[-1]["ade20k_miou"] == "40.0"
    assert [row["davis_2016_jf_mean"] for row in csv_rows(runs, "davis_2016")] == ["80.0"]
    assert {row["row"] for name in ("components", "compatibility") for row in csv_rows(runs, name)} == {"published"}
    assert csv_rows(runs, "classification") == []
    # Descriptors that no row states are left out.
    assert "\nmethod & backbone & (J\\&F)m & Jm & Fm \\\\\n" in render_all(runs)["davis_2016.tex"]


def test_k_nn_and_probe_may_be_two_results(runs: Path, write: WriteResult) -> None:
    for classifier, pattern, seed in (("knn", "NN", 0), ("linear", "linear", 3)):
        path = write("one", "classification", folder=f"one/{classifier}", seed=seed)
        content = json.loads(path.read_text())
        content["metrics"] = {name: value for name, value in content["metrics"].items() if pattern in name}
        path.write_text(json.dumps(content))
    (row,) = csv_rows(runs, "classification")
    assert (row["knn_result"], row["linear_result"]) == ("one/knn/result.json", "one/linear/result.json")


def test_a_row_per_data_set_with_columns_for_every_k(runs: Path, write: WriteResult) -> None:
    deviating = {"deviations": {"epochs": [100, 1]}}  # of the probe, which leaves k-NN a benchmark number
    write("one", "classification", values={"200-NN top-1": 33.0}, intervals={"200-NN top-1": [31.5, 34.25]}, **deviating)
    path = write("one", "classification", folder="one/other", settings={"knn_features": "CLS token", "linear_features": "two"})
    path.write_text(path.read_text().replace('"CIFAR-10"', '"imagenet"'))
    cifar, imagenet = csv_rows(runs, "classification")
    assert [name for name in cifar if name.endswith("top1")] == ["knn10_top1", "knn20_top1", "knn200_top1", "linear_top1"]
    names = ("dataset", "knn200_top1", "knn200_top1_low", "knn200_top1_high")
    assert [cifar[name] for name in names] == ["CIFAR-10 test", "33.0", "31.5", "34.25"]
    assert (imagenet["dataset"], imagenet["knn200_top1"], imagenet["knn_features"]) == ("imagenet test", "", "CLS token")
    assert (cifar["knn10_top1_status"], cifar["linear_top1_status"]) == ("measured", "measured-deviating")
    assert (cifar["knn_deviations"], cifar["linear_deviations"]) == ("", '{"epochs": [100, 1]}')
    assert " 33.0 <sub>31.5–34.2</sub> " in render_all(runs)["tables.md"]
    assert r"\pbInterval{\pbMeasured{33.0}}{31.5}{34.2}" in render_all(runs)["classification.tex"]


def test_seeds_become_their_mean_and_a_baseline_by_each_of_their_names(runs: Path, write: WriteResult) -> None:
    for seed, value in enumerate(VALUES):
        source = {"recipe_sha256": "a" * 64, "seed": seed}
        write(f"run{seed}", "davis", values={"J&F-Mean": value}, source=source, sha256=f"{seed}" * 64)
    write("mine", "davis", values={"J&F-Mean": 62.0})
    pages = [render_all(runs, name)["tables.md"] for name in ("run1", "run0, run1, run2")]
    assert ["61.8 ± 1.5 (n=3)" in page for page in pages] == [True, True]
    assert ["62.0</u> (+0.2)" in page for page in pages] == [True, True]
    rows = csv_rows(runs, "main")[-4:]
    assert [row["row"] for row in rows] == ["mean", "seed", "seed", "seed"]
    assert [float(row["davis_jf_mean"]) for row in rows] == [statistics.fmean(VALUES), *VALUES]
    assert float(rows[0]["davis_jf_mean_spread"]) == statistics.stdev(VALUES)


def test_a_seed_without_value_leaves_the_mean_without_one(runs: Path, write: WriteResult) -> None:
    for seed, value in enumerate((50.0, float("nan"))):
        write("one", "segmentation", folder=f"{seed}/x", seed=seed, values={"mIoU": value})
    rows = csv_rows(runs, "main")[-3:]
    assert [(row["ade20k_miou"], row["ade20k_miou_spread"]) for row in rows] == [("", ""), ("50.0", ""), ("", "")]


def test_a_benchmark_that_no_layout_knows_gets_a_table_of_its_own(
    runs: Path, write: WriteResult, monkeypatch: pytest.MonkeyPatch
) -> None:
    davis = BENCHMARKS["davis"]
    columns = tuple(dataclasses.replace(one, benchmark="davis_2030", key=f"new_{one.key}") for one in davis.columns)
    new = dataclasses.replace(davis, key="davis_2030", title="DAVIS-2030", protocol="davis-2030", columns=columns)
    monkeypatch.setitem(BENCHMARKS, "davis_2030", new)
    write("one", "davis", protocol="davis-2030", values={"J&F-Mean": 80.0})
    assert [row["new_davis_jf_mean"] for row in csv_rows(runs, "davis_2030")] == ["80.0"]
    assert "## DAVIS-2030" in render_all(runs)["tables.md"]


ODD = r"50%_of #1 & {x}^2~\y $z$ <a|b> ±"


def _measured_cells(page: str) -> list[list[str]]:
    lines = [
        [cell.strip() for cell in re.split(r"(?<!\\)\|", line)[1:-1]] for line in page.splitlines() if line.startswith("|")
    ]
    return [cells for cells in lines if len(cells) > 2 and cells[0][0] != ":" and cells[-1] not in ("published", "standing")]


def test_values_keep_precision_and_odd_names_their_cell_and_a_missing_value_is_no_task_that_was_not_run(
    runs: Path, write: WriteResult
) -> None:
    name, shown, deviations = '=a,"b"\n\x07c|tick`d', '\'=a,"b" c|tick`d', {"topk": [5, 7], "b": [[1], 'x,"y"']}
    write(name, "davis", folder="odd/davis", values={"J&F-Mean": 100 / 3}, coverage="subset", deviations=deviations)
    write("one", "segmentation", values={"mIoU": float("nan")})
    measured = [row for table in ("components", "compatibility") for row in csv_rows(runs, table) if row["row"] == "measured"]
    assert [row["method"] for row in measured] == [shown] * 2
    odd, one = csv_rows(runs, "main")[-2:]
    assert (odd["method"], float(odd["davis_jf_mean"]), odd["davis_jf_mean_status"]) == (shown, 100 / 3, "measured-subset")
    assert json.loads(odd["davis_deviations"]) == deviations
    assert (one["ade20k_miou"], one["ade20k_miou_status"]) == ("", "measured")
    odd_cells, cells = _measured_cells(render_all(runs)["tables.md"].split("## Components")[0])
    assert len(odd_cells) == len(cells) == 5 + 12
    assert (cells[4:10], cells[10], cells[13:]) == (["–"] * 6, "n/a", [*["–"] * 3, "measured"])
    assert odd_cells[-1] == "subset"


@pytest.mark.parametrize("status", NO_BENCHMARK_NUMBERS)
def test_what_is_no_benchmark_number_is_bracketed_in_every_cell_and_its_row_says_why(
    runs: Path, write: WriteResult, status: Status
) -> None:
    for task in ("davis", "detection", "segmentation"):
        write("one", task, **NO_BENCHMARK_NUMBERS[status])
    page = render_all(runs)["tables.md"]
    rows = _measured_cells(page)
    values = [[cell for cell in cells if re.search(r"\d\.\d", cell)] for cells in rows]
    assert [len(of_row) for of_row in values] == [12, 1, 1]
    assert all(re.fullmatch(r"\*\[\d+\.\d\]\*", value) for of_row in values for value in of_row)
    assert [cells[-1] for cells in rows] == [status.removeprefix("measured-")] * 3


def test_a_benchmark_number_stands_plain(runs: Path, write: WriteResult) -> None:
    write("one", "davis", values={"J&F-Mean": 61.76})
    assert "| <u>61.8</u> |" in render_all(runs)["tables.md"]


@pytest.mark.parametrize(
    "text", ["<b>x</b>", "[a](http://b)", "![a](http://b)", "a\x1b[2Jb", "a\u202eb", "``` <i>", "\\<b>", "\uff1d1"]
)
def test_a_results_words_are_neither_html_nor_links_nor_code(text: str, runs: Path, write: WriteResult) -> None:
    path = write("one", "davis", source={"branch": text, "format": text})
    content = json.loads(path.read_text())
    for role in ("test", text):
        content["datasets"][role] = content["datasets"]["test"] | {"name": text, "split": text}
    path.write_text(json.dumps(content))
    files = render_all(runs)
    assert all(file.replace("\n", "").isprintable() for file in files.values())
    # What is left of the page without code spans and escaped characters.
    bare = re.sub(r"(`+) ?(?!`).*?(?<!`)\1(?!`)|\\.", "", files["tables.md"])
    assert [part for part in ("<b>", "<i>", "[a]", "```") if part in bare] == []


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
    for name, text in tables.items():
        bare = re.sub(r"\\[{}&%#$_]", " ", text)
        assert bare.count("{") == bare.count("}"), name
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


@pytest.mark.usefixtures("odd_results")
@pytest.mark.skipif(shutil.which("pdflatex") is None, reason="no pdflatex")
def test_the_document_compiles(runs: Path, tmp_path: Path) -> None:
    make_tables(TablesConfig(runs=runs, output=tmp_path / "out", baseline="DINO"))
    command = ["pdflatex", "-interaction=nonstopmode", "-halt-on-error", "tables.tex"]
    finished = subprocess.run(command, cwd=tmp_path / "out", capture_output=True, text=True, check=False)
    assert finished.returncode == 0, finished.stdout[-2000:]
    assert (tmp_path / "out/tables.pdf").stat().st_size > 10_000


@pytest.mark.parametrize("name", ["[abl] 1", "*"])
def test_a_row_never_begins_with_an_argument_of_the_line_before(name: str, runs: Path, write: WriteResult) -> None:
    """LaTeX takes a bracket or star after the end of a row for the space below it."""
    write(name, "davis")
    assert f"\n{{}}{name} & " in render_all(runs)["main.tex"]
