import csv
import io
import json
from collections.abc import Callable
from pathlib import Path

from tables.make import render_all

Write = Callable[..., Path]


def _rows(text: str) -> list[dict[str, str]]:
    return list(csv.DictReader(io.StringIO(text), strict=True))


def test_published_figures_keep_their_digits_and_say_so(runs: Path) -> None:
    rows = _rows(render_all(runs)["main.csv"])
    assert rows[0]["davis_j_mean"] == "56.0"
    for row in rows:
        for key, text in row.items():
            if key.endswith("_status"):
                assert text == "published"
            if key.endswith(("_items", "_deviations", "_result")):
                assert text == ""


def test_measured_figures_keep_full_precision_standing_and_origin(runs: Path, write: Write) -> None:
    value = 100 / 3
    write("one", "davis", values={"J&F-Mean": value}, coverage="subset", deviations={"topk": [5, 7], "b": [[1], 'x,"y"']})
    row = _rows(render_all(runs)["main.csv"])[-1]
    assert float(row["davis_jf_mean"]) == value
    assert row["davis_jf_mean_status"] == "measured-subset"
    assert row["davis_items"] == "2"
    assert row["davis_result"] == "one/davis/result.json"
    assert json.loads(row["davis_deviations"]) == {"topk": [5, 7], "b": [[1], 'x,"y"']}
    assert row["source"] == "measured here"
    assert len(row["backbone_sha256"]) == 64
    assert (row["coco_box_ap"], row["coco_box_ap_status"], row["coco_result"]) == ("", "", "")


def test_a_figure_without_value_is_empty_but_keeps_its_standing(runs: Path, write: Write) -> None:
    write("one", "segmentation", values={"mIoU": float("nan")})
    row = _rows(render_all(runs)["main.csv"])[-1]
    assert (row["ade20k_miou"], row["ade20k_miou_status"]) == ("", "measured")


def test_names_with_commas_quotes_and_breaks_stay_in_their_cell(runs: Path, write: Write) -> None:
    name = 'a,"b"\nc'
    write(name, "davis", folder="odd/davis")
    for table in ("main", "components", "compatibility"):
        assert _rows(render_all(runs)[f"{table}.csv"])[-1]["method"] == name
