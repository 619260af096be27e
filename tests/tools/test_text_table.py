"""Aligned plain text."""

from tools.text_table import text_table

EXPECTED = """\
task       value  standing
---------  -----  ---------
davis       45.2  [sample]
             7.0
detection  failed, see above
last       100.0  benchmark"""


def test_columns_are_aligned_and_remarks_run_on() -> None:
    rows = [
        ("davis", "45.2", "", "[sample]"),
        ("", "7.0", "", ""),
        ("detection", "failed, see above"),
        ("last", "100.0", "", "benchmark"),
    ]
    assert text_table(("task", "value", "empty", "standing"), rows, right=("value",)) == EXPECTED


def test_no_rows_no_table() -> None:
    assert text_table(("task",), []) == ""
