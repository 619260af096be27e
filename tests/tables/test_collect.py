import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from tables.collect import CollectionError, collect
from tables.make import render_all

Write = Callable[..., Path]


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


def test_every_faulty_file_gets_its_line(runs: Path, write: Write) -> None:
    paths = [write(name, "davis") for name in ("a", "b", "c")]
    paths[0].write_text("{")
    _edit(paths[2], lambda content: content.update(version=7))
    problems = _problems(runs)
    assert len(problems) == 2
    assert str(paths[0]) in problems[0]
    assert str(paths[2]) in problems[1]


def test_a_second_result_of_a_task_is_refused(runs: Path, write: Write) -> None:
    write("one", "davis")
    write("one", "davis", folder="copy/davis")
    (problem,) = _problems(runs)
    assert problem == (
        "one/davis/result.json: a second davis result of 'one' with the same seed, beside copy/davis/result.json; "
        "remove one or evaluate under another --name"
    )


def test_one_name_for_two_backbones_is_refused(runs: Path, write: Write) -> None:
    write("one", "davis", sha256="a" * 64)
    write("one", "segmentation", sha256="b" * 64)
    (problem,) = _problems(runs)
    assert "one/segmentation/result.json: 'one' is another backbone file here than in one/davis/result.json" in problem


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
