"""What the report shows of results besides their tables: pictures, films, charts of items, training curves."""

import base64
import io
import json
import math
import re
import shutil
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

from common.plots import read_log
from tables.make import build_tables
from tables.report.data import make_section
from tables.report.pictures import PictureBudget, galleries, make_films
from tables.report.plots import averaged, item_charts, training_curves, values_per_item
from tables.report.pretraining import pretrainings
from tests.tables.report.conftest import groups_of, render, write_pictures, write_run


def _pictures(runs: Path, limit_mb: float = 20) -> dict[str, list[dict[str, Any]]]:
    """Name of a backbone -> its pictures."""
    groups = groups_of(runs)
    shown = galleries(groups, PictureBudget(limit_mb=limit_mb))
    return {one["measurement"].name: one["pictures"] for group in groups for one in shown[group.anchor]}


def _decoded(uri: str) -> Image.Image:
    return Image.open(io.BytesIO(base64.b64decode(uri.partition(",")[2])))


def test_pictures_become_part_of_the_page_and_wide_ones_are_reduced(runs: Path) -> None:
    write_run(runs, "a", "detection")
    first, second = _pictures(runs)["a"]
    assert (first["title"], first["problem"]) == ("prediction on 0.jpg", "")
    image = _decoded(first["uri"])
    assert (image.format, image.size) == ("WEBP", (first["width"], first["height"])) == ("WEBP", (64, 36))
    assert second["uri"] != first["uri"]
    Image.new("RGB", (2080, 500)).save(runs / "run0/detection/predictions/000.png")
    assert _decoded(_pictures(runs)["a"][0]["uri"]).size == (1040, 250)


def test_the_limit_cuts_all_results_alike_and_names_what_is_left_out(runs: Path) -> None:
    write_run(runs, "a", "detection", 0)
    write_run(runs, "b", "detection", 1)
    size = len(_pictures(runs)["a"][0]["uri"])
    shown = _pictures(runs, limit_mb=2.5 * size / 1e6)
    assert [[bool(one["uri"]) for one in pictures] for pictures in shown.values()] == [[True, False], [True, False]]
    message = "run1/detection/predictions/001.png is beyond the limit on pictures (--max-picture-mb)"
    assert shown["b"][1]["problem"] == message


def test_a_picture_that_cannot_be_shown_is_named(runs: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    write_run(runs, "a", "detection")
    path = runs / "run0/detection/predictions/000.png"
    monkeypatch.setattr(Image, "MAX_IMAGE_PIXELS", 5000)
    Image.new("RGB", (200, 200)).save(path)
    assert "cannot be read" in _pictures(runs)["a"][0]["problem"]
    path.write_bytes(b"\x89PNG\r\n\x1a\n\0\0")
    assert "cannot be read" in _pictures(runs)["a"][0]["problem"]
    path.unlink()
    first, second = _pictures(runs)["a"]
    assert "is missing" in first["problem"]
    assert (first["uri"], second["problem"]) == ("", "")


@pytest.mark.parametrize("path", ["../../secret.png", "/etc/hosts.png", "predictions/../../../secret.png", "link.png"])
def test_nothing_outside_the_folder_of_a_result_gets_in(runs: Path, path: str) -> None:
    write_run(runs, "a", "detection", artefacts={"picture": path})
    Image.new("RGB", (8, 8)).save(runs / "secret.png")
    (runs / "run0/detection/link.png").symlink_to(runs / "secret.png")
    (picture,) = _pictures(runs)["a"]
    assert picture["problem"] == f"run0/detection/{path} lies outside its result's folder"


def test_films_show_the_same_frames_of_every_backbone_and_name_what_is_missing(runs: Path) -> None:
    for number, name in enumerate("abc"):
        write_run(runs, name, "davis", number)
    shown = make_films(groups_of(runs)[0], 1, PictureBudget(limit_mb=20))
    assert shown is not None
    assert ([film["sequence"] for film in shown["films"]], shown["left_out"]) == (
        ["sequence-01"],
        ["sequence-00", "sequence-02"],
    )
    (film,) = shown["films"]
    assert film["frames"] == ["000", "001", "002", "003", "004"]
    strip = _decoded(film["strips"][0]["uri"]).convert("RGB")
    assert strip.size == (film["width"], 5 * film["strips"][0]["height"]) == (320, 5 * 180)
    reds = [strip.getpixel((160, 180 * number + 90))[0] for number in range(5)]  # type: ignore[index]
    assert reds == pytest.approx([30 * number for number in range(5)], abs=4), "the colours of the pictures"
    (runs / "run1/davis/overlays").rename(runs / "elsewhere")
    (runs / "run2/davis/overlays/sequence-01/003.png").unlink()
    film = make_films(groups_of(runs)[0], 1, PictureBudget(limit_mb=20))["films"][0]  # type: ignore[index]
    problems = [(strip["measurement"].name, strip["problem"]) for strip in film["strips"]]
    missing = [("b", "run1/davis/overlays is missing"), ("c", "run2/davis/overlays/sequence-01 has no frame 003.png")]
    assert problems == [("a", ""), *missing]
    overlays = runs / "run0/davis/overlays"
    (overlays / "sequence-01").rename(runs / "sequence-01")
    shutil.rmtree(overlays)
    (overlays / "class").mkdir(parents=True)
    (runs / "sequence-01").rename(overlays / "class/sequence-01")
    nested = make_films(groups_of(runs)[0], 9, PictureBudget(limit_mb=20))
    assert nested is not None
    assert "class/sequence-01" in [film["sequence"] for film in nested["films"]]


def _davis(**objects: float) -> dict[str, Any]:
    return {"breakdown": {name: {"J&F-Mean": value} for name, value in objects.items()}}


def test_a_sequence_is_the_mean_of_its_objects(runs: Path) -> None:
    objects = {"dogs-jump_1": 40.0, "dogs-jump_2": 50.0, "goat_10": 70.0, "no-number": 5.0, "_1": 6.0}
    write_run(runs, "a", "davis", **_davis(**objects))
    entry = groups_of(runs)[0].measurements[0]
    assert values_per_item(entry, "J&F-Mean", "sequences") == {"dogs-jump": 45.0, "goat": 70.0, "no-number": 5.0, "_1": 6.0}
    assert values_per_item(entry, "J&F-Mean", "images") == objects


def test_items_are_sorted_by_their_mean_and_say_their_values(runs: Path) -> None:
    write_run(runs, "a", "davis", 1, **_davis(x_1=10, y_1=90, none_1=math.nan))
    write_run(runs, "b", "davis", 2, **_davis(x_1=30, y_1=70, z_1=75))
    (chart,) = item_charts(groups_of(runs)[0])
    rows = re.findall(r"<title>(.*?)</title>", chart["panels"][0], flags=re.DOTALL)  # shown when the mouse is there
    assert rows == ["y\n90.0 a\n70.0 b", "z\n75.0 b", "x\n10.0 a\n30.0 b"]
    assert chart["without_value"] == ["none"]


def test_a_long_log_is_averaged_and_one_that_is_gone_is_named(runs: Path) -> None:
    write_run(runs, "a", "segmentation")
    write_run(runs, "gone", "segmentation", 1)
    (runs / "run1/segmentation/training/training.jsonl").unlink()
    curves = training_curves(groups_of(runs)[0])
    assert curves is not None
    assert [one["problem"] for one in curves["runs"]] == ["", "run1/segmentation/training/training.jsonl is missing"]
    log, _ = read_log(runs / "run0/segmentation/training/training.jsonl")
    points, size = averaged(log, "loss")
    assert (len(points), size) == (134, 3)
    # The first point is the mean of 5/1, 5/2 and 5/3, at iteration 2 of 400.
    assert points[0] == pytest.approx((2, (5 + 5 / 2 + 5 / 3) / 3))


def test_incomparable_results_are_apart(runs: Path) -> None:
    write_run(runs, "a", "davis", 1)
    write_run(runs, "b", "davis", 2)
    write_run(runs, "c", "davis", 3, version=2)
    write_run(runs, "d", "davis", 4, listing="1" * 64, coverage="subset")
    groups = groups_of(runs)
    assert [[one.name for one in group.measurements] for group in groups] == [["a", "b"], ["c"], ["d"]]
    assert [make_section(group, groups)["apart"] for group in groups[:2]] == [[], ["protocol.version (1, 2)"]]


def test_a_pretraining_shows_its_facts_curves_and_pictures_beside_its_results(runs: Path) -> None:
    source = {
        "format": "patchbench",
        "recipe": "own_recipe",
        "pretraining_data": "coco/train2017",
        "log": "runs/mine/log.jsonl",
    }
    for task in ("davis", "detection"):
        write_run(runs, "mine", task, source=source, epoch=3)
    write_run(runs, "other", "davis", 1)
    folder = runs / "run0/pretraining"
    write_pictures(folder, 1)
    lines = [{"step": step, "epoch": step // 10, "loss": 9.0 - step / 10, "lr": 1e-3} for step in range(1, 60)]
    (folder / "log.jsonl").write_text("".join(f"{json.dumps(line)}\n" for line in lines))

    def shown() -> dict[str, Any]:
        evaluated = build_tables(runs).evaluated
        (found,) = pretrainings(
            [measurement for row in evaluated for measurement in row.measurements], PictureBudget(limit_mb=1)
        )
        return found

    found = shown()
    # The log goes on after the checkpoint.
    assert [plot["title"] for plot in found["plots"]] == ["Total loss", "Learning rate"]
    assert "Total loss over 29 iterations" in found["plots"][0]["svg"]
    assert [(one["title"], bool(one["uri"])) for one in found["pictures"]] == [("000", True)]
    page = render(runs)
    stated = {"Recipe": "own_recipe", "Data": "coco/train2017", "Epochs": "3", "Seed": "not stated", "Log": source["log"]}
    assert [label for label, text in stated.items() if f"<dt>{label}</dt><dd>{text}</dd>" not in page] == []
    assert "recipe own_recipe, data coco/train2017, log runs/mine/log.jsonl" in page
    assert page.count('<h2 id="pretraining-') == 1
    (folder / "log.jsonl").unlink()
    (folder / "log.jsonl").symlink_to(runs / "run1/davis/result.json")
    assert "lies outside" in shown()["problem"]
    (folder / "log.jsonl").unlink()
    assert "is missing" in shown()["problem"]
    assert "No curves: pretraining/log.jsonl beside the results is missing" in render(runs)


def test_the_contents_name_several_pretrainings_once(runs: Path) -> None:
    for number, name in enumerate(("a", "b")):
        write_run(runs, name, "davis", number, source={"format": "patchbench", "log": f"runs/{name}/log.jsonl"})
    page = render(runs)
    assert page.count(">Pretraining of 2 backbones</a>") == 1
    assert page.count('<h2 id="pretraining-') == 2
