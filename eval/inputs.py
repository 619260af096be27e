"""What determines a task's figures: so that a folder is continued or read again only for the same, and a difference is named."""

import dataclasses
import json
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

from common.files import text_sha256
from eval.result import RESULT_FILE, Dataset, Protocol, Result, ResultError, read_result

_SHOWN = 4

Inputs = dict[str, Any]
"""JSON-ready; from `describe_inputs`."""


def describe_inputs(task: str, protocol: Protocol, datasets: Mapping[str, Dataset], backbone_sha256: str, seed: int) -> Inputs:
    """Everything that determines a task's figures."""
    inputs = {
        "task": task,
        "protocol": dataclasses.asdict(protocol),
        "datasets": {role: dataclasses.asdict(dataset) for role, dataset in datasets.items()},
        "backbone": backbone_sha256,
        "seed": seed,
    }
    described: Inputs = json.loads(json.dumps(inputs, sort_keys=True, default=str))
    return described


def inputs_digest(inputs: Inputs) -> str:
    """For `Result.inputs_sha256`."""
    return text_sha256(json.dumps(inputs, sort_keys=True))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """The first few differences, such as `protocol.settings.epochs 12 -> 3, seed 0 -> 1`."""
    # Deviations repeat settings.
    earlier, later = (
        {name: value for name, value in _flat(inputs) if not name.startswith("protocol.deviations")} for inputs in (before, now)
    )
    names = [name for name in {**earlier, **later} if earlier.get(name) != later.get(name)]
    shown = [f"{name} {earlier.get(name, 'absent')} -> {later.get(name, 'absent')}" for name in names[:_SHOWN]]
    return ", ".join(shown) + (f" and {len(names) - _SHOWN} more" if len(names) > _SHOWN else "")


def finished_result(folder: Path, inputs: Inputs) -> Result | None:
    """The result in a folder if it was made from the same inputs, else None.

    Raises:
        ResultError: If there is a damaged result file, or one of other inputs: overwriting somebody's figures is never silent.
    """
    path = folder / RESULT_FILE
    if not path.exists():
        return None
    result = read_result(path)
    if result.inputs_sha256 != inputs_digest(inputs):
        earlier = describe_inputs(result.task, result.protocol, result.datasets, result.backbone.sha256, result.seed)
        raise ResultError(
            f"{path}: made from other inputs ({differences(earlier, inputs)}); choose another --output or remove it"
        )
    return result


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value
