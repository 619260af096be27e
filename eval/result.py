"""The record that every task writes: `result.json`, typed, complete, written last and atomically.

Numbers are stored in full precision; only `tables` rounds. "No value" is NaN here and `null` in the file.
"""

import dataclasses
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Literal

from common.files import write_text_atomically

RESULT_VERSION = 1
RESULT_FILE = "result.json"

# `tools/make_sample_data.py` puts this file at the root of each data set that it draws, so that no metric on generated data can be
# taken for a benchmark's.
SAMPLE_MARKER = "patchbench_sample.json"

Coverage = Literal["full", "subset", "sample"]


class ResultError(ValueError):
    """A result file that is damaged, incomplete or of another version."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that a task measured."""

    value: float
    """Full precision; NaN where there is no value."""
    unit: str = "percent"
    """`percent` (0 to 100) for everything that a paper prints as such."""
    higher_is_better: bool = True
    """Direction of improvement."""
    interval_95: list[float] = field(default_factory=list)
    """Lower and upper end of the 95 % interval by resampling the items; empty where the task gives none."""


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the metrics were made."""

    name: str
    """Such as `davis-2017-label-propagation`."""
    version: int
    """Grows whenever a change of the code can change a metric."""
    settings: dict[str, Any]
    """Every constant of the protocol as used."""
    deviations: dict[str, list[Any]] = field(default_factory=dict)
    """Settings that differ from the published protocol: name -> [published, used]. Empty for a faithful run."""


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Fingerprint of the data of one split."""

    name: str
    """Such as `COCO 2017`."""
    split: str
    """Such as `val2017`."""
    num_items: int
    """Images, or sequences for video."""
    listing_sha256: str
    """Digest of the sorted item names, with their sizes where these are cheap to get."""
    coverage: Coverage
    """The whole benchmark, a part of it, or generated sample data."""


@dataclass(frozen=True, kw_only=True)
class BackboneRecord:
    """Which backbone was evaluated."""

    name: str
    """The run's name."""
    sha256: str
    """Digest of the backbone file."""
    spec: dict[str, Any]
    """`backbones.spec.spec_to_dict` of its spec."""
    source: dict[str, Any]
    """Format, branch, file name, digest and epoch of the checkpoint it was converted from."""


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where the metrics were made."""

    device: str
    """`cpu`, or the GPU's name."""
    world_size: int
    """Number of processes."""
    packages: dict[str, str]
    """Versions of python and of the packages that can change a metric."""
    code: str
    """Git commit of PatchBench, with `-dirty` where files differ from it; `unknown` outside a checkout."""


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished task on one backbone."""

    task: str
    """`detection`, `segmentation`, `davis` or `classification`."""
    protocol: Protocol
    """How the metrics were made."""
    metrics: dict[str, Metric]
    """In the order in which tables print them."""
    breakdown: dict[str, dict[str, float]]
    """Metrics per item: sequence, class or area -> metric name -> value, in the unit of the metrics."""
    datasets: dict[str, Dataset]
    """`test`, and `train` where the task fine-tunes."""
    backbone: BackboneRecord
    """The network that was evaluated."""
    config: dict[str, Any]
    """The task's resolved config."""
    seed: int
    """Seed of everything random."""
    environment: Environment
    """Where the metrics were made."""
    wall_time_s: float
    """Seconds from start to result, of the last session where a run was continued."""
    peak_memory_bytes: int
    """Largest resident memory of one process, or allocated memory of one GPU where one was used."""
    artefacts: dict[str, str]
    """Name -> path relative to the result file."""
    inputs_sha256: str
    """Digest of `eval.record.Inputs`, which determine the metrics; a finished task with the same inputs is not run again."""
    version: int = RESULT_VERSION
    """Version of this schema."""

    @property
    def coverage(self) -> Coverage:
        """The least complete coverage among the datasets."""
        order: list[Coverage] = ["sample", "subset", "full"]
        return min((dataset.coverage for dataset in self.datasets.values()), key=order.index)

    @property
    def is_benchmark(self) -> bool:
        """Whether the metrics may stand beside published ones: the whole benchmark under the published protocol."""
        return self.coverage == "full" and not self.protocol.deviations


def write_result(folder: Path, result: Result) -> Path:
    """Write `folder/result.json` atomically; call it last. Returns its path."""
    path = folder / RESULT_FILE
    content = _nan_to_null(dataclasses.asdict(result))
    write_text_atomically(path, json.dumps(content, indent=1, allow_nan=False, default=str) + "\n")
    return path


def read_result(path: Path) -> Result:
    """Read a result file.

    Raises:
        ResultError: If it is damaged, incomplete, or of another version; names the file.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except (OSError, UnicodeDecodeError, json.JSONDecodeError) as error:
        raise ResultError(f"{path}: not a readable result file ({error})") from error
    if not isinstance(content, dict) or "version" not in content:
        raise ResultError(f"{path}: not a result file (no version)")
    version = content["version"]
    if version != RESULT_VERSION:
        newer = isinstance(version, int) and version > RESULT_VERSION
        advice = "a newer PatchBench wrote it, update this one" if newer else "run the task again"
        raise ResultError(f"{path}: result version {version}, this PatchBench reads {RESULT_VERSION}; {advice}")
    try:
        return _result_from_dict(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultError(f"{path}: incomplete result ({error}); run the task again") from error


def _result_from_dict(content: dict[str, Any]) -> Result:
    def metric(values: dict[str, Any]) -> Metric:
        return Metric(**{**values, "value": _null_to_nan(values["value"])})

    return Result(
        **{
            **content,
            "protocol": Protocol(**content["protocol"]),
            "metrics": {name: metric(values) for name, values in content["metrics"].items()},
            "breakdown": {
                item: {name: _null_to_nan(value) for name, value in metrics.items()}
                for item, metrics in content["breakdown"].items()
            },
            "datasets": {role: Dataset(**values) for role, values in content["datasets"].items()},
            "backbone": BackboneRecord(**content["backbone"]),
            "environment": Environment(**content["environment"]),
        }
    )


def _null_to_nan(value: float | None) -> float:
    return math.nan if value is None else value


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nan_to_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
