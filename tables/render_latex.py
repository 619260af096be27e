r"""Tables for a paper: LaTeX with booktabs.

Every figure stands in a macro that says what it is (`\pbSample`, `\pbBest`, ...), so that a paper may print it in its own way; the
macros are in a file of their own. `tables.tex` is a document of all tables.
"""

from collections.abc import Mapping, Sequence

from tables.comparison import Comparison, Mark, printed
from tables.render_markdown import signed
from tables.rows import Cell, Row, Status, Table

DOCUMENT = "tables.tex"
MACROS = "macros.tex"

_FEATURES = ("knn_features", "linear_features")
_NO_VALUE = "n/a"
_NOT_RUN = "--"

# Written so that the fonts of the smallest TeX installation have them.
_ESCAPES = str.maketrans(
    {
        "\\": r"\textbackslash{}",
        "{": r"\{",
        "}": r"\}",
        "$": r"\ensuremath{\mathdollar}",
        "&": r"\&",
        "#": r"\#",
        "%": r"\%",
        "_": r"\_",
        "^": r"\^{}",
        "~": r"\~{}",
        "<": r"\textless{}",
        ">": r"\textgreater{}",
        "|": r"\textbar{}",
        "±": r"\ensuremath{\pm}",
        "–": "--",
        "`": "",
    }
)

_STANDINGS: dict[Status, str] = {
    "published": r"\pbPublished",
    "measured": r"\pbMeasured",
    "measured-deviating": r"\pbDeviating",
    "measured-subset": r"\pbSubset",
    "measured-sample": r"\pbSample",
}
_RANKS = {"best": r"\pbBest", "second": r"\pbSecond"}

_MACROS = r"""% What the figures of the tables are; change these to print them in another way.
% Published, as printed in the source.
\newcommand{\pbPublished}[1]{#1}
% Measured here, on the whole benchmark by the published protocol.
\newcommand{\pbMeasured}[1]{#1\textsuperscript{m}}
% Measured here, no benchmark numbers: by a deviating protocol, on a part of the benchmark, on sample data.
\newcommand{\pbDeviating}[1]{\textit{[#1]}\textsuperscript{deviating}}
\newcommand{\pbSubset}[1]{\textit{[#1]}\textsuperscript{subset}}
\newcommand{\pbSample}[1]{\textit{[#1]}\textsuperscript{sample}}
% Best and second of the benchmark numbers in a column; one that does not compete.
\newcommand{\pbBest}[1]{\textbf{#1}}
\newcommand{\pbSecond}[1]{\underline{#1}}
\newcommand{\pbIncomparable}[1]{#1\textsuperscript{\ensuremath{\ddagger}}}
% Mean, standard deviation and number of seeds.
\newcommand{\pbSpread}[3]{#1\,\ensuremath{\pm}\,#2 (n=#3)}
% Figure and its 95 % interval over resampled items.
\newcommand{\pbInterval}[3]{#1\textsubscript{#2--#3}}
% Difference from the baseline; significant by a paired bootstrap over items.
\newcommand{\pbDelta}[1]{ (#1)}
\newcommand{\pbSignificantDelta}[1]{ (#1\textsuperscript{*})}
"""

_LEGEND = (
    r"\textsuperscript{m}: measured here; the other upright figures are as published. \textit{[In brackets]}: measured here, not a "
    r"benchmark number. Bold and underlined: best and second of the benchmark numbers of a column. In parentheses: difference from "
    r"the baseline; *: significant by a paired bootstrap over the test items (95\,\%)."
)


def render_macros() -> str:
    """The file of macros."""
    return _MACROS


def render_document(names: Sequence[str]) -> str:
    """A document of all tables, to be compiled in the folder where they lie.

    Args:
        names: Of the tables' files, without their suffix.
    """
    preamble = [
        r"\documentclass{article}",
        r"\usepackage[utf8]{inputenc}",
        r"\usepackage{booktabs}",
        r"\usepackage{graphicx}",
        r"\usepackage[landscape,margin=1cm]{geometry}",
        r"\input{macros}",
    ]
    body = [rf"\input{{{name}}}" for name in names]
    return "\n".join([*preamble, r"\begin{document}", *body, r"\end{document}"]) + "\n"


def render_latex(table: Table, comparison: Comparison) -> str:
    """One table as a float, as wide as the page."""
    descriptors = _stated(table)
    features = _feature_numbers(table)
    caption = " ".join([*map(escape, (f"{table.layout.title}.", table.layout.caption)), _LEGEND, *_feature_legend(features)])
    columns = "l" * len(descriptors) + "r" * len(table.layout.columns)
    lines = [
        r"\begin{table}",
        r"\centering",
        rf"\caption{{{caption}}}",
        rf"\label{{tab:{table.layout.name.replace('_', '-')}}}",
        r"\smallskip",
        r"\resizebox{\ifdim\width>\linewidth\linewidth\else\width\fi}{!}{%",
        rf"\begin{{tabular}}{{{columns}}}",
        r"\toprule",
        *_headings(table, descriptors),
        r"\midrule",
    ]
    for number, row in enumerate(table.rows):
        if number and (row.evaluated is None) != (table.rows[number - 1].evaluated is None):
            lines.append(r"\midrule")
        figures = [_figure(row.cells.get(column.key), comparison.mark(number, column.key)) for column in table.layout.columns]
        lines.append(_line([*(_descriptor(row, name, features) for name in descriptors), *figures]))
    lines += [r"\bottomrule", r"\end{tabular}%", "}", r"\end{table}"]
    return "\n".join(lines) + "\n"


def escape(text: str) -> str:
    """Text as LaTeX prints it, on one line and without Markdown's backticks; letters beyond Latin-1 are left to the engine."""
    return " ".join(text.split()).translate(_ESCAPES)


def _stated(table: Table) -> list[str]:
    """The descriptors that some row states."""
    return [name for name in table.layout.descriptors if any(row.descriptors[name] for row in table.rows)]


def _headings(table: Table, descriptors: Sequence[str]) -> list[str]:
    """Two lines: benchmarks over their columns with rules below, then the columns."""
    benchmarks, rules = [""] * len(descriptors), []
    place = len(descriptors)
    for benchmark in table.layout.benchmarks:
        width = sum(column.benchmark == benchmark for column in table.layout.columns)
        benchmarks.append(rf"\multicolumn{{{width}}}{{c}}{{{escape(benchmark.title)}}}")
        rules.append(rf"\cmidrule(lr){{{place + 1}-{place + width}}}")
        place += width
    names = [escape(name.replace("_", " ")) for name in descriptors] + [
        escape(column.heading) for column in table.layout.columns
    ]
    return [_line(benchmarks), *rules, _line(names)]


def _line(cells: Sequence[str]) -> str:
    return " & ".join(cells) + r" \\"


def _descriptor(row: Row, name: str, features: Mapping[str, str]) -> str:
    text = row.descriptors[name]
    return f"({features[text]})" if name in _FEATURES and text else escape(text) or _NOT_RUN


def _feature_numbers(table: Table) -> dict[str, str]:
    """A number for each way to represent an image, whose description is too long for a column."""
    texts = dict.fromkeys(row.descriptors.get(name, "") for row in table.rows for name in _FEATURES)
    return {text: str(number) for number, text in enumerate(filter(None, texts), start=1)}


def _feature_legend(features: Mapping[str, str]) -> list[str]:
    return [f"Features: {'; '.join(f'({number}) {escape(text)}' for text, number in features.items())}."] if features else []


def _figure(cell: Cell | None, mark: Mark) -> str:
    if cell is None:
        return _NOT_RUN
    text = _NO_VALUE
    if cell.value is not None:
        text = printed(cell.value) if cell.measurements else escape(cell.text)
    if cell.spread is not None:
        text = rf"\pbSpread{{{text}}}{{{printed(cell.spread)}}}{{{len(cell.measurements)}}}"
    if mark.rank is not None:
        text = rf"{_RANKS[mark.rank]}{{{text}}}"
    text = rf"{_STANDINGS[cell.status]}{{{text}}}"
    if mark.incomparable:
        text = rf"\pbIncomparable{{{text}}}"
    if cell.interval_95 is not None:
        text = rf"\pbInterval{{{text}}}{{{printed(cell.interval_95[0])}}}{{{printed(cell.interval_95[1])}}}"
    if mark.delta is not None:
        significant = mark.interval is not None and mark.interval.significant
        delta = signed(mark.delta).replace("-", r"\ensuremath{-}")
        text += rf"\pb{'Significant' if significant else ''}Delta{{{delta}}}"
    return text
