import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tables.collect import CollectionError, Slot, collect
from tables.make import render_all

Write = Callable[..., Path]
RECIPE = "a" * 64


def _edit(path: Path, change: Callable[[dict[str, Any]], object]) -> None:
    content = json.loads(path.read_text())
    change(content)
    path.write_text(json.dumps(content))


def _problems(runs: Path) -> list[str]:
    with pytest.raises(CollectionError) as caught:
        collect(runs)
    return caught.value.problems


def test_results_are_gathered_by_name_from_any_depth(runs: Path, write: Write) -> None:
    write("zebra", "davis")
    write("ant", "davis", folder="deep/er/ant/davis")
    write("ant", "detection")
    ant, zebra = collect(runs)
    assert (ant.name, zebra.name) == ("ant", "zebra")
    assert {slot.benchmark: [one.path for one in found] for slot, found in ant.slots.items()} == {
        "coco": ["ant/detection/result.json"],
        "davis": ["deep/er/ant/davis/result.json"],
    }
    assert ant.architecture == "ViT-Ti/16"


def test_a_missing_folder_is_named(tmp_path: Path) -> None:
    with pytest.raises(ValueError, match=r"--runs .*nowhere: no such folder"):
        collect(tmp_path / "nowhere")


@pytest.mark.parametrize(
    ("change", "message"),
    [
        (
            lambda content: content.update(version=99),
            "result version 99, this PatchBench reads 1; a newer PatchBench wrote it, update this one",
        ),
        (lambda content: content.update(version=0), "result version 0, this PatchBench reads 1; run the task again"),
        (lambda content: content.update(version="2"), "result version 2, this PatchBench reads 1; run the task again"),
        (lambda content: content.pop("version"), "not a result file"),
        (lambda content: content.pop("protocol"), "incomplete result"),
        (lambda content: content.update(surprise=1), "incomplete result"),
        (lambda content: content["metrics"].pop("J&F-Mean"), "no metric J&F-Mean"),
        (
            lambda content: content["metrics"]["J-Mean"].update(value="high"),
            "metrics.J-Mean.value is 'high', not of type float",
        ),
        (lambda content: content["metrics"]["J-Mean"].update(value=-100.0), r"J-Mean is -100.0, not within 0 to 100"),
        (lambda content: content["metrics"]["F-Mean"].update(unit="fraction"), "F-Mean is in 'fraction', not in percent"),
        (lambda content: content["datasets"].clear(), "no test dataset"),
        (
            lambda content: content["datasets"]["test"].update(coverage="most"),
            "datasets.test.coverage is 'most', none of full, subset, sample",
        ),
        (lambda content: content["backbone"].update(name=""), "the backbone has no name"),
        (lambda content: content["backbone"]["spec"].pop("embed_dim"), "backbone.spec: 'embed_dim'"),
        (lambda content: content["backbone"]["source"].pop("epoch"), "backbone.source states no epoch"),
        (
            lambda content: content["backbone"]["source"].update(epoch="last"),
            "backbone.source.epoch is 'last', not of type int",
        ),
        (lambda content: content["protocol"].update(deviations={"topk": 5}), "protocol.deviations.topk is 5, not of type list"),
        (
            lambda content: content.update(task="poetry"),
            "no table shows metrics of the task 'poetry' by the protocol 'davis-2017-label-propagation'",
        ),
        (
            lambda content: content["protocol"].update(name="davis-2099"),
            "no table shows metrics of the task 'davis' by the protocol 'davis-2099' with these names; known: davis by davis-2017-",
        ),
        (
            lambda content: content["metrics"]["J-Mean"].update(interval_95=[3.0, 2.0]),
            "metric J-Mean has the interval [3.0, 2.0], not [low, high]",
        ),
        (
            lambda content: content["backbone"]["source"].update(recipe_sha256=5),
            "backbone.source.recipe_sha256 is 5, not of type str",
        ),
    ],
)
def test_a_faulty_result_gets_one_line_with_its_path(
    runs: Path, write: Write, change: Callable[[dict[str, Any]], object], message: str
) -> None:
    write("good", "davis")
    path = write("bad", "davis")
    _edit(path, change)
    (problem,) = _problems(runs)
    assert str(path) in problem
    assert message in problem
    assert "\n" not in problem


@pytest.mark.parametrize("keep", [0, 1, 40, 400])
def test_a_truncated_result_gets_one_line(runs: Path, write: Write, keep: int) -> None:
    path = write("one", "davis")
    path.write_bytes(path.read_bytes()[:keep])
    (problem,) = _problems(runs)
    assert f"{path}: not a readable result file" in problem


def test_a_second_result_of_a_task_is_refused(runs: Path, write: Write) -> None:
    write("one", "davis")
    write("one", "davis", folder="copy/davis")
    (problem,) = _problems(runs)
    assert problem == (
        "one/davis/result.json: a second davis result of 'one' with the same seed, beside copy/davis/result.json; "
        "remove one or evaluate under another --name"
    )


def _source(seed: int, recipe: str = RECIPE) -> dict[str, Any]:
    return {"recipe_sha256": recipe, "seed": seed}


def _names(runs: Path) -> list[str]:
    return [one.name for one in collect(runs)]


def test_seeds_of_the_fine_tuning_under_one_name_fill_one_place(runs: Path, write: Write) -> None:
    for seed in (0, 1, 2):
        write("one", "segmentation", folder=f"one/segmentation{seed}", seed=seed)
    (one,) = collect(runs)
    assert [found.result.seed for found in one.slots[Slot("ade20k", "")]] == [0, 1, 2]


def test_seeds_of_the_pretraining_are_one_row_under_one_name_or_several(runs: Path, write: Write) -> None:
    for seed in (0, 1):
        write("same", "davis", folder=f"same{seed}/davis", source=_source(seed), sha256=f"{seed}" * 64)
    for seed, name in enumerate(("left", "right")):
        write(name, "davis", source=_source(seed, "b" * 64), sha256=f"{seed + 2}" * 64)
    assert _names(runs) == ["left, right", "same"]
    assert [len(one.slots[Slot("davis", "")]) for one in collect(runs)] == [2, 2]


@pytest.mark.parametrize(
    "other",
    [
        {"source": _source(1, "c" * 64)},
        {"source": _source(1), "epoch": 100},
        {"source": {**_source(1), "branch": "student"}},
        {"source": _source(0)},
        {"source": {"recipe_sha256": RECIPE}},
        {"source": {}},
        {"source": _source(1), "settings": {"topk": 7}},
        {"source": _source(1), "version": 2},
        {"source": _source(1), "listing": "f" * 64},
    ],
    ids=["recipe", "epoch", "branch", "seed", "no seed", "nothing", "settings", "version", "data"],
)
def test_backbones_that_differ_in_more_than_the_seed_stay_apart(runs: Path, write: Write, other: dict[str, Any]) -> None:
    write("one", "davis", source=_source(0), sha256="1" * 64)
    write("two", "davis", sha256="2" * 64, **other)
    assert _names(runs) == ["one", "two"]


def test_runs_with_other_benchmarks_stay_apart_and_that_is_said(
    runs: Path, write: Write, caplog: pytest.LogCaptureFixture
) -> None:
    write("one", "davis", source=_source(0), sha256="1" * 64)
    write("two", "davis", source=_source(1), sha256="2" * 64)
    write("two", "detection", source=_source(1), sha256="2" * 64)
    with caplog.at_level("INFO"):
        assert _names(runs) == ["one", "two"]
    assert "one, two are of one recipe, and stay apart: one and two were not measured on the same benchmarks" in caplog.text


def test_the_same_backbone_under_two_names_is_two_rows(runs: Path, write: Write) -> None:
    write("six_heads", "davis", source=_source(0), sha256="1" * 64)
    write("eight_heads", "davis", source=_source(0), sha256="1" * 64)
    assert _names(runs) == ["eight_heads", "six_heads"]


def test_another_seed_with_other_settings_is_refused_under_the_same_name(runs: Path, write: Write) -> None:
    write("one", "segmentation", settings={"iterations": 40000})
    write("one", "segmentation", folder="one/again", seed=1, settings={"iterations": 20})
    assert _problems(runs)[0] == (
        "one/segmentation/result.json: no further seed of the ade20k result one/again/result.json of 'one', since they differ in "
        "settings.iterations (20, 40000); remove one or evaluate under another --name"
    )


def test_two_trainings_with_the_same_seed_are_refused_under_one_name(runs: Path, write: Write) -> None:
    for number, seed in enumerate((0, 1, 1)):
        write("one", "davis", folder=f"{number}/davis", source=_source(seed), sha256=f"{number}" * 64)
    assert _problems(runs)[0].startswith(
        "2/davis/result.json: 'one' is another backbone file here than in 1/davis/result.json, and not"
    )


def test_results_from_before_recipes_were_recorded_are_read(runs: Path, write: Write) -> None:
    path = write("old", "davis")
    assert "recipe_sha256" not in json.loads(path.read_text())["backbone"]["source"]
    assert _names(runs) == ["old"]


_JSON = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), st.just([]), st.just({}))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_leads_to_a_crash(runs: Path, write: Write, data: st.DataObject) -> None:
    """Whatever replaces any part of a result: the tables are made, or the user gets the lines."""
    path = write("one", "davis", deviations={"topk": [5, 7]})
    content = json.loads(path.read_text())
    node, keys = content, []
    while isinstance(node, dict) and node and (not keys or data.draw(st.booleans())):
        keys.append(data.draw(st.sampled_from(sorted(node))))
        parent, node = node, node[keys[-1]]
    parent[keys[-1]] = data.draw(_JSON)
    path.write_text(json.dumps(content))
    try:
        files = render_all(runs)
    except CollectionError as error:
        lines = error.problems
    else:
        lines = list(csv.DictReader(io.StringIO(files["main.csv"]), strict=True))[-1:]
    assert len(lines) == 1
    assert "\n" not in lines[0]
