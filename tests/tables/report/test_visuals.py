"""What the report shows of results besides their tables: pictures, films, charts of items, training curves."""

import base64
import io
import math
import re
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from common.plots import read_log
from tables.report.data import make_section
from tables.report.pictures import PictureBudget, galleries, make_films
from tables.report.plots import averaged, item_charts, training_curves, values_per_item
from tests.tables.report.conftest import WriteRun, groups_of

OVER_LIMIT = "is beyond the limit on pictures (--max-picture-mb)"


def _pictures(runs: Path, limit_mb: float = 20) -> dict[str, list[dict[str, Any]]]:
    """Name of a backbone -> its pictures."""
    groups = groups_of(runs)
    shown = galleries(groups, PictureBudget(limit_mb=limit_mb))
    return {one["measurement"].name: one["pictures"] for group in groups for one in shown[group.anchor]}


def _films(runs: Path, most: int = 6, limit_mb: float = 20) -> dict[str, Any]:
    films = make_films(groups_of(runs)[0], most, PictureBudget(limit_mb=limit_mb))
    assert films is not None
    return films


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_pictures_become_part_of_the_page_wide_ones_reduced_and_gifs_as_they_are(runs: Path, run: WriteRun) -> None:
    run("a", "detection")
    first, second = _pictures(runs)["a"]
    assert (first["title"], first["problem"]) == ("prediction on 0.jpg", "")
    image = _decoded(first["uri"])
    assert (image.format, image.size) == ("WEBP", (first["width"], first["height"])) == ("WEBP", (64, 36))
    assert second["uri"] != first["uri"]
    Image.new("RGB", (2080, 500)).save(runs / "run0/detection/predictions/000.png")
    assert _decoded(_pictures(runs)["a"][0]["uri"]).size == (1040, 250)
    run("b", "davis", artefacts={"film": "film.gif"})
    pages = [Image.new("RGB", (8, 8), (shade, 0, 0)) for shade in (0, 100, 200)]
    pages[0].save(runs / "run0/davis/film.gif", save_all=True, append_images=pages[1:])
    (picture,) = _pictures(runs)["b"]
    assert base64.b64decode(picture["uri"].partition(",")[2]) == (runs / "run0/davis/film.gif").read_bytes()


def test_the_limit_cuts_all_results_alike_and_names_what_is_left_out(
    runs: Path, run: WriteRun, caplog: pytest.LogCaptureFixture
) -> None:
    run("a", "detection", 0)
    run("b", "detection", 1)
    size = len(_pictures(runs)["a"][0]["uri"])
    shown = _pictures(runs, limit_mb=2.5 * size / 1e6)
    assert [[bool(one["uri"]) for one in pictures] for pictures in shown.values()] == [[True, False], [True, False]]
    assert shown["b"][1]["problem"] == f"run1/detection/predictions/001.png {OVER_LIMIT}"
    budget = PictureBudget(limit_mb=0)
    galleries(groups_of(runs), budget)
    assert budget.omitted == [f"run{number}/detection/predictions/00{turn}.png" for turn in range(2) for number in range(2)]


def test_a_picture_that_cannot_be_shown_is_named(runs: Path, run: WriteRun, monkeypatch: pytest.MonkeyPatch) -> None:
    run("a", "detection")
    path = runs / "run0/detection/predictions/000.png"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    Image.new("RGB", (200, 200)).save(path)
    problems = [_pictures(runs)["a"][0]["problem"]]
    for content in (b"", b"\x89PNG\r\n\x1a\n\0\0"):
        path.write_bytes(content)
        problems.append(_pictures(runs)["a"][0]["problem"])
    assert ["cannot be read" in problem for problem in problems] == [True] * 3
    path.unlink()
    first, second = _pictures(runs)["a"]
    assert "is missing" in first["problem"]
    assert first["uri"] == ""
    assert second["uri"]


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/hosts.png", "predictions/../../../secret.png", "link.png"])
def test_nothing_outside_the_folder_of_a_result_gets_in(runs: Path, run: WriteRun, path: str) -> None:
    run("a", "detection", artefacts={"picture": path})
    Image.new("RGB", (8, 8)).save(runs / "secret.png")
    (runs / "run0/detection/link.png").symlink_to(runs / "secret.png")
    (picture,) = _pictures(runs)["a"]
    assert picture["problem"] == f"run0/detection/{path} lies outside its result's folder"


def test_films_show_the_same_frames_of_every_backbone(runs: Path, run: WriteRun) -> None:
    run("a", "davis", 1)
    run("b", "davis", 2)
    films = _films(runs)
    assert [film["sequence"] for film in films["films"]] == ["sequence-00", "sequence-01", "sequence-02"]
    film = films["films"][0]
    assert (film["frames"], film["num_frames"]) == (["000", "001", "002", "003", "004"], 5)
    assert [strip["measurement"].name for strip in film["strips"]] == ["a", "b"]
    strip = _decoded(film["strips"][0]["uri"]).convert("RGB")
    assert strip.size == (320, 5 * 180) == (film["width"], 5 * film["strips"][0]["height"])
    reds = [strip.getpixel((160, 180 * number + 90))[0] for number in range(5)]  # type: ignore[index]
    assert reds == pytest.approx([30 * number for number in range(5)], abs=4), "the colours of the pictures"
    run("c", "davis", 3, artefacts={"masks": "overlays"})
    films = _films(runs, most=1)
    assert [film["sequence"] for film in films["films"]] == ["sequence-01"]
    assert films["left_out"] == ["sequence-00", "sequence-02"]
    assert [strip["shows"] for strip in films["films"][0]["strips"]] == ["overlays", "overlays", "masks"]


def test_what_a_film_lacks_is_named(runs: Path, run: WriteRun) -> None:
    for number, name in enumerate("abcde"):
        run(name, "davis", number)
    folders = [runs / f"run{number}/davis/overlays/sequence-01" for number in range(5)]
    folders[1].rename(folders[1].with_name("elsewhere"))
    folders[2].parent.rename(folders[2].parent.with_name("elsewhere"))
    (folders[3] / "003.png").unlink()
    film = next(film for film in _films(runs)["films"] if film["sequence"] == "sequence-01")
    assert [strip["problem"] for strip in film["strips"]] == [
        "",
        "run1/davis/overlays has no sequence sequence-01",
        "run2/davis/overlays is missing",
        "run3/davis/overlays/sequence-01 has no frame 003.png",
        "",
    ]
    problems = {film["strips"][0]["problem"] for film in _films(runs, limit_mb=0)["films"]}
    assert {f"run0/davis/overlays/sequence-0{number} {OVER_LIMIT}" for number in range(3)} <= problems
    for folder in (folders[0], folders[3], folders[4]):
        for path in folder.iterdir():
            path.unlink()
    (film,) = [film for film in _films(runs)["films"] if film["sequence"] == "sequence-01"]
    assert film["strips"][0]["problem"] == "run0/davis/overlays/sequence-01 holds no frame"


def _charts(runs: Path) -> list[dict[str, Any]]:
    return item_charts(groups_of(runs)[0])


def _rows(chart: dict[str, Any]) -> list[str]:
    """What each row says when the mouse is there, from the top."""
    return [text for panel in chart["panels"] for text in re.findall(r"<title>(.*?)</title>", panel, flags=re.DOTALL)]


def _davis(**sequences: float) -> dict[str, Any]:
    return {"breakdown": {name: {"J&F-Mean": value} for name, value in sequences.items()}}


def test_a_sequence_is_the_mean_of_its_objects(runs: Path, run: WriteRun) -> None:
    objects = {"dogs-jump_1": 40.0, "dogs-jump_2": 50.0, "goat_10": 70.0, "no-number": 5.0, "_1": 6.0}
    run("a", "davis", **_davis(**objects))
    entry = groups_of(runs)[0].measurements[0]
    assert values_per_item(entry, "J&F-Mean", "sequences") == {"dogs-jump": 45.0, "goat": 70.0, "no-number": 5.0, "_1": 6.0}
    assert values_per_item(entry, "J&F-Mean", "images") == objects


def test_items_are_sorted_by_their_mean_and_say_their_values(runs: Path, run: WriteRun) -> None:
    run("a", "davis", 1, **_davis(x_1=10, y_1=90))
    run("b", "davis", 2, **_davis(x_1=30, y_1=70, z_1=75))
    (chart,) = _charts(runs)
    assert _rows(chart) == ["y\n90.0 a\n70.0 b", "z\n75.0 b", "x\n10.0 a\n30.0 b"]
    (panel,) = chart["panels"]
    assert panel.count('data-series="') == 2
    assert panel.count("<use") == 5


def test_classes_without_a_value_are_named(runs: Path, run: WriteRun) -> None:
    classes = {"cat": {"bbox_mAP": 5.0, "segm_mAP": math.nan}, "dog": {"bbox_mAP": math.nan, "segm_mAP": math.nan}}
    run("a", "detection", breakdown=classes)
    boxes, masks = _charts(runs)
    assert _rows(boxes) == ["cat\n5.0 a"]
    assert boxes["without_value"] == ["dog"]
    assert (masks["panels"], masks["without_value"]) == ([], ["cat", "dog"])


def test_many_classes_are_shown_from_both_ends(runs: Path, run: WriteRun) -> None:
    run("a", "classification", breakdown={f"n{k:04}": {"20-NN top-1": k / 10, "10-NN top-1": 1.0} for k in range(1000)})
    chart = _charts(runs)[0]
    names = [row.partition("\n")[0] for row in _rows(chart)]
    assert chart["title"] == "20-NN top-1 per class"
    assert (len(names), names[0], names[59], names[60], names[-1]) == (120, "n0999", "n0940", "n0059", "n0000")
    assert (chart["num_rows"], chart["folded"], chart["not_drawn"]) == (120, True, 880)
    run("b", "classification", 1, breakdown={"cat": {"10-NN top-1": 50.0}})  # k = 20 is not in the breakdowns of both
    assert [[chart["title"] for chart in item_charts(group)] for group in groups_of(runs)] == [["10-NN top-1 per class"], []]


def test_more_backbones_than_colours_differ_in_shape(runs: Path, run: WriteRun) -> None:
    for number in range(14):
        run(f"b{number:02}", "davis", number, **_davis(x_1=number))
    (chart,) = _charts(runs)
    assert len({(line["colour"], line["shape"]) for line in chart["legend"]}) == 14
    assert [line["shown"] for line in chart["legend"]] == [True] * 6 + [False] * 8
    assert [panel.count('class="series off"') for panel in chart["panels"]] == [8]


def test_a_long_log_is_averaged_and_says_so(runs: Path, run: WriteRun) -> None:
    run("a", "detection")
    curves = training_curves(groups_of(runs)[0])
    assert curves is not None
    plots = {plot["title"]: plot for plot in curves["runs"][0]["plots"]}
    assert list(plots) == ["Total loss", "Parts of the loss", "Training accuracy (%)", "Learning rate"]
    assert [name for name, _ in plots["Parts of the loss"]["legend"]] == ["loss_cls", "loss_bbox"]
    assert plots["Total loss"]["lines_per_point"] == 3
    log, _ = read_log(runs / "run0/detection/training/training.jsonl")
    points, size = averaged(log, "loss")
    assert (len(points), size) == (134, 3)
    # The first point is the mean of 5/1, 5/2 and 5/3, at iteration 2 of 400.
    assert points[0] == pytest.approx((2, (5 + 5 / 2 + 5 / 3) / 3))


def test_runs_are_compared_by_their_total_loss_and_a_log_that_is_gone_is_named(runs: Path, run: WriteRun) -> None:
    for number, name in enumerate(("a", "b", "gone"), start=1):
        run(name, "segmentation", number)
    (runs / "run3/segmentation/training/training.jsonl").unlink()
    curves = training_curves(groups_of(runs)[0])
    assert curves is not None
    assert re.findall(r'data-series="(\d)"', curves["loss"]["svg"]) == ["0", "1"]
    assert [line["measurement"].name for line in curves["legend"]] == ["a", "b", "gone"]
    problems = [one["problem"] for one in curves["runs"]]
    assert problems == ["", "", "run3/segmentation/training/training.jsonl is missing"]
    run("trains nothing", "davis")
    assert training_curves(groups_of(runs)[0]) is None


def test_incomparable_results_are_apart(runs: Path, run: WriteRun) -> None:
    run("a", "davis", 1)
    run("b", "davis", 2)
    run("c", "davis", 3, version=2)
    run("d", "davis", 4, listing="1" * 64, coverage="subset")
    groups = groups_of(runs)
    assert [[one.name for one in group.measurements] for group in groups] == [["a", "b"], ["c"], ["d"]]
    sections = [make_section(group, groups) for group in groups]
    assert [section["title"] for section in sections] == [f"DAVIS-2017: DAVIS 2017 val ({number})" for number in (1, 2, 3)]
    assert sections[1]["apart"] == ["protocol.version (1, 2)"]
    assert sections[0]["apart"] == []
