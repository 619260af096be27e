"""LaTeX: balanced, escaped, and only macros that exist. A page of all tables is compiled where an engine is installed."""

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
def test_what_a_figure_is_worth_can_be_seen(runs: Path) -> None:
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
