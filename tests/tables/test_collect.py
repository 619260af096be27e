import json
import os
from pathlib import Path
from typing import Any

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from backbones.spec import FunctionSpec, TimmSpec, spec_to_dict
from tables.collect import CollectionError, Slot, collect
from tests.tables.conftest import WriteResult, csv_rows

RECIPE = "a" * 64


def _problems(runs: Path) -> list[str]:
    with pytest.raises(CollectionError) as caught:
        collect(runs)
    return caught.value.problems


def test_results_are_gathered_by_name_from_any_depth(runs: Path, write: WriteResult) -> None:
    write("zebra", "davis")
    write("ant", "davis", folder="deep/er/ant/davis")
    write("ant", "detection")
    ant, zebra = collect(runs)
    assert (ant.name, zebra.name) == ("ant", "zebra")
    assert {slot.benchmark: [measurement.path for measurement in found] for slot, found in ant.slots.items()} == {
        "coco": ["ant/detection/result.json"],
        "davis": ["deep/er/ant/davis/result.json"],
    }
    assert ant.architecture == "ViT-Ti/16"


def test_networks_that_are_none_of_ours_are_rows_too(runs: Path, write: WriteResult) -> None:
    measured = {"channels": (8, 16), "strides": (4, 8), "image_size": 64, "size_step": 8}
    write("convnext", "davis", spec=spec_to_dict(TimmSpec(name="convnext_atto", **measured)))
    write("own", "davis", spec=spec_to_dict(FunctionSpec(function="my.module:build", source_sha256="e" * 64, **measured)))
    assert [row.architecture for row in collect(runs)] == ["convnext_atto", "my.module:build"]


REMOVED = object()


@pytest.mark.parametrize(
    ("place", "value", "message"),
    [
        ("version", 99, "result version 99, this PatchBench reads 1; a newer PatchBench wrote it, update this one"),
        ("version", "2", "result version 2, this PatchBench reads 1; run the task again"),
        ("version", REMOVED, "not a result file"),
        ("protocol", REMOVED, "incomplete result"),
        ("surprise", 1, "incomplete result"),
        ("protocol.name", "x", "the task 'davis' by the protocol 'x' with these names; known: davis by davis-2017-"),
        ("protocol.deviations", {"topk": [5]}, "deviation topk is not [published, used]"),
        ("metrics.J&F-Mean", REMOVED, "no metric J&F-Mean"),
        ("metrics.J-Mean.value", "high", "metrics.J-Mean.value is 'high', not of type float"),
        ("metrics.J-Mean.value", -100.0, "J-Mean is -100.0, not within 0 to 100"),
        ("metrics.J-Mean.interval_95", [3.0, 2.0], "metric J-Mean has the interval [3.0, 2.0], not [low, high] within"),
        ("metrics.J-Mean.interval_95", [-1e308, 1e308], "not [low, high] within 0 to 100"),
        ("wall_time_s", 1e308, "wall_time_s is 1e+308, not within 0 to"),
        ("peak_memory_bytes", -1, "peak_memory_bytes is -1, not within 0 to"),
        ("seed", 2**64, "18446744073709551616 is no number of 64 bits"),
        ("datasets.test.num_items", 2**60, "datasets.test.num_items is 1152921504606846976, not within"),
        ("breakdown", {"dog_1": {"J-Mean": -1e308}}, "J-Mean of dog_1 is -1e+308"),
        ("metrics.F-Mean.unit", "fraction", "F-Mean is in 'fraction', not in percent"),
        ("datasets", {}, "no test dataset"),
        ("datasets.test.coverage", "most", "datasets.test.coverage is 'most', none of full, subset, sample"),
        ("backbone.name", "", "the backbone has no name"),
        ("backbone.name", "x" * 256, "the backbone's name has 256 characters"),
        ("backbone.spec.embed_dim", REMOVED, "missing 1 required keyword-only argument: 'embed_dim'"),
        ("backbone.spec.num_heads", "<script>", "backbone.spec: num_heads='<script>' must be an integer"),
        ("backbone.spec.patch_size", "\x1b[2J", "backbone.spec: patch_size='\\x1b[2J' must be an integer"),
        ("backbone.source.epoch", REMOVED, "backbone.source states no epoch"),
        ("backbone.source.recipe_sha256", 5, "backbone.source.recipe_sha256 is 5, not of type str"),
    ],
)
def test_a_faulty_result_gets_one_line_with_its_path(
    runs: Path, write: WriteResult, place: str, value: object, message: str
) -> None:
    write("good", "davis")
    path = write("bad", "davis")
    content = json.loads(path.read_text())
    *parents, key = place.split(".")
    node = content
    for parent in parents:
        node = node[parent]
    node[key] = value
    if value is REMOVED:
        del node[key]
    path.write_text(json.dumps(content))
    (problem,) = _problems(runs)
    assert message in problem.removeprefix(f"{path}: ")
    assert problem.startswith(f"{path}: ")
    assert "\n" not in problem


def _source(seed: int, recipe: str = RECIPE) -> dict[str, Any]:
    return {"recipe_sha256": recipe, "seed": seed}


def test_seeds_are_one_row_under_one_name_or_several(runs: Path, write: WriteResult) -> None:
    for seed in (0, 1):
        write("fine-tuned", "davis", folder=f"fine-tuned{seed}", seed=seed)
        write("same", "davis", folder=f"same{seed}/davis", source=_source(seed), sha256=f"{seed}" * 64)
    for seed, name in enumerate(("left", "right")):
        write(name, "davis", source=_source(seed, "b" * 64), sha256=f"{seed + 2}" * 64)
    found = {row.name: len(row.slots[Slot("davis", "")]) for row in collect(runs)}
    assert found == {"fine-tuned": 2, "left, right": 2, "same": 2}


@pytest.mark.parametrize(
    "other",
    [
        {"source": _source(1, "c" * 64)},
        {"source": _source(1), "epoch": 100},
        {"source": {**_source(1), "branch": "student"}},
        {"source": _source(0)},
        {"source": {"recipe_sha256": RECIPE}},
        {"source": {}},
        {"source": _source(0), "sha256": "1" * 64},
        {"source": _source(1), "settings": {"topk": 7}},
        {"source": _source(1), "version": 2},
        {"source": _source(1), "listing": "f" * 64},
    ],
    ids=["recipe", "epoch", "branch", "seed", "no seed", "nothing", "same file", "settings", "version", "data"],
)
def test_backbones_that_differ_in_more_than_the_seed_stay_apart(runs: Path, write: WriteResult, other: dict[str, Any]) -> None:
    write("one", "davis", source=_source(0), sha256="1" * 64)
    write("two", "davis", **({"sha256": "2" * 64} | other))
    assert [row.name for row in collect(runs)] == ["one", "two"]


def test_runs_with_other_benchmarks_stay_apart_and_that_is_said(
    runs: Path, write: WriteResult, caplog: pytest.LogCaptureFixture
) -> None:
    write("one", "davis", source=_source(0), sha256="1" * 64)
    write("two", "davis", source=_source(1), sha256="2" * 64)
    write("two", "detection", source=_source(1), sha256="2" * 64)
    with caplog.at_level("INFO"):
        assert [row.name for row in collect(runs)] == ["one", "two"]
    assert "one, two are of one recipe, and stay apart: one and two were not measured on the same benchmarks" in caplog.text


@pytest.mark.parametrize(
    ("results", "message"),
    [
        ([{}, {"folder": "copy/davis"}], "a second davis result of 'one' with the same seed, beside copy/davis/result.json"),
        (
            [{"settings": {"topk": 5}}, {"folder": "one/again", "seed": 1, "settings": {"topk": 7}}],
            "no further seed of the davis result one/again/result.json of 'one', since they differ in settings.topk (7, 5)",
        ),
        *(
            (
                [{"folder": "a", "source": _source(1)}, {"source": source, "sha256": "f" * 64}],
                "'one' is another backbone file here than in a/result.json, and not the same recipe with another seed",
            )
            for source in (_source(1), _source(2, "b" * 64))
        ),
    ],
)
def test_what_does_not_go_together_is_refused_under_one_name(
    runs: Path, write: WriteResult, results: list[dict[str, Any]], message: str
) -> None:
    for options in results:
        write("one", "davis", **options)
    assert _problems(runs) == [f"one/davis/result.json: {message}; remove one or evaluate under another --name"]


def test_a_pipe_is_no_result(runs: Path) -> None:
    """Its reader would wait for a writer for ever."""
    os.mkfifo(runs / "result.json")
    (problem,) = _problems(runs)
    assert problem.startswith(f"{runs}/result.json: not a readable result file")
    assert "a folder, pipe or device, not a file" in problem


_JSON = st.one_of(st.none(), st.booleans(), st.integers(-5, 5), st.floats(), st.text(max_size=3), st.just([]), st.just({}))


@settings(max_examples=150, deadline=None, derandomize=True, suppress_health_check=[HealthCheck.function_scoped_fixture])
@given(data=st.data())
def test_no_damage_leads_to_a_crash(runs: Path, write: WriteResult, data: st.DataObject) -> None:
    """Whatever replaces any part of a result, the tables are made, or the user gets a line for each problem."""
    path = write("one", "davis", deviations={"topk": [5, 7]})
    content = json.loads(path.read_text())
    node, keys = content, []
    while isinstance(node, dict) and node and (not keys or data.draw(st.booleans())):
        keys.append(data.draw(st.sampled_from(sorted(node))))
        parent, node = node, node[keys[-1]]
    parent[keys[-1]] = data.draw(_JSON)
    path.write_text(json.dumps(content))
    try:
        (line,) = csv_rows(runs, "main")[-1:]
    except CollectionError as error:
        (line,) = error.problems  # type: ignore[assignment]
    assert "\n" not in line
