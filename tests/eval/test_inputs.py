"""Only identical inputs count as finished, and a difference is named."""

import dataclasses
from pathlib import Path

import pytest

from eval.inputs import Inputs, describe_inputs, differences, finished_result, inputs_digest
from eval.result import Result, ResultError, write_result
from tests.eval.test_result import make_result


def inputs_of(result: Result) -> Inputs:
    return describe_inputs(result.task, result.protocol, result.datasets, result.backbone.sha256, result.seed)


def test_only_the_same_inputs_are_finished(tmp_path: Path) -> None:
    result = make_result()
    inputs = inputs_of(result)
    assert finished_result(tmp_path, inputs) is None
    write_result(tmp_path, dataclasses.replace(result, inputs_sha256=inputs_digest(inputs)))
    assert finished_result(tmp_path, inputs) is not None
    others = inputs_of(dataclasses.replace(result, seed=result.seed + 1))
    with pytest.raises(ResultError, match=rf"other inputs \(seed {result.seed} -> {result.seed + 1}\)"):
        finished_result(tmp_path, others)


def test_the_digest_depends_on_every_input() -> None:
    result = make_result()
    other_protocol = dataclasses.replace(result.protocol, settings={"topk": 4})
    digests = {
        inputs_digest(inputs)
        for inputs in (
            describe_inputs("davis", result.protocol, result.datasets, "1", 0),
            describe_inputs("other", result.protocol, result.datasets, "1", 0),
            describe_inputs("davis", other_protocol, result.datasets, "1", 0),
            describe_inputs("davis", result.protocol, make_result("subset").datasets, "1", 0),
            describe_inputs("davis", result.protocol, result.datasets, "2", 0),
            describe_inputs("davis", result.protocol, result.datasets, "1", 1),
        )
    }
    assert len(digests) == 6


def test_differences_are_named_by_their_path() -> None:
    before = {"a": {"b": 1, "c": (1, 2)}, "d": 3}
    assert differences(before, before) == ""
    assert differences(before, {"a": {"b": 2, "c": (1, 2)}, "e": 0}) == "a.b 1 -> 2, d 3 -> absent, e absent -> 0"
    many = {str(index): index for index in range(6)}
    assert differences({}, many).endswith("3 absent -> 3 and 2 more")
