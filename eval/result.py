"""The record that every task writes: `result.json`, typed, complete, written last and atomically.

Numbers are stored in full precision; only `tables` rounds. "No value" is NaN here and `null` in the file.
"""

import dataclasses
import io
import json
import math
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from common.files import parse_json, write_text_atomically

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

RESULT_VERSION = 1
RESULT_FILE = "result.json"

# `tools/make_sample_data.py` puts this file at the root of each data set that it draws, so that no metric on generated data can be
# taken for a benchmark's.
SAMPLE_MARKER = "patchbench_sample.json"

_MOST_BYTES = 1 << 30  # of the arrays of all items; an archive of a few bytes may state any size

Coverage = Literal["full", "subset", "sample"]


class ResultError(ValueError):
    """A result file that is damaged, incomplete or of another version."""


@dataclass(frozen=True, kw_only=True)
class Metric:
    """One number that a task measured, in full precision; its value is NaN where there is none.

    The unit is `percent` (0 to 100) for everything that a paper prints as such. `interval_95` holds the lower and upper end of the
    95 % interval by resampling the items; it is empty where the task gives none.
    """

    value: float
    unit: str = "percent"
    higher_is_better: bool = True
    interval_95: list[float] = field(default_factory=list)


@dataclass(frozen=True, kw_only=True)
class Protocol:
    """How the metrics were made: the name of one of the protocols in `eval.tasks`, and every constant as used.

    The version grows whenever a change of the code can change a metric. `deviations` has the settings that differ from the published
    protocol: name -> [published, used].
    """

    name: str
    version: int
    settings: dict[str, Any]
    deviations: dict[str, list[Any]] = field(default_factory=dict)


@dataclass(frozen=True, kw_only=True)
class Dataset:
    """Fingerprint of the data of one split, such as `val2017` of `COCO 2017`.

    Items are images, or sequences for video; `listing_sha256` is the digest of their sorted names, with their sizes where these are
    cheap to get. `coverage` tells the whole benchmark from a part of it and from generated sample data.
    """

    name: str
    split: str
    num_items: int
    listing_sha256: str
    coverage: Coverage


@dataclass(frozen=True, kw_only=True)
class BackboneRecord:
    """Which backbone was evaluated: the run's name, the digest of its file, its spec as `backbones.spec.spec_to_dict` gives it.

    `source` has format, branch, file name, digest and epoch of the checkpoint that it was converted from.
    """

    name: str
    sha256: str
    spec: dict[str, Any]
    source: dict[str, Any]


@dataclass(frozen=True, kw_only=True)
class Environment:
    """Where the metrics were made: on `cpu` or the GPU of this name, by `world_size` processes.

    `packages` has the versions of python and of the packages that can change a metric; `code` is the Git commit of PatchBench, with
    `-dirty` where files differ from it, or `unknown` outside a checkout.
    """

    device: str
    world_size: int
    packages: dict[str, str]
    code: str
    threads: int = 0  # of torch in each process; 0 in results from before this was recorded


@dataclass(frozen=True, kw_only=True)
class Result:
    """One finished task, by its name in `python -m eval TASK`, on one backbone; datasets are `test`, and `train` where it learns."""

    task: str
    protocol: Protocol
    metrics: dict[str, Metric]  # in the order in which tables print them
    breakdown: dict[str, dict[str, float]]  # sequence, class or area -> metric -> value, in the unit of the metrics
    datasets: dict[str, Dataset]
    backbone: BackboneRecord
    config: dict[str, Any]  # resolved
    seed: int
    environment: Environment
    wall_time_s: float  # from start to result; of a run that was interrupted the sum of its parts
    peak_memory_bytes: int
    """Largest resident memory of one process, or allocated memory of one GPU where one was used."""
    artefacts: dict[str, str]  # name -> path relative to the result file
    inputs_sha256: str  # of what determines the metrics; a finished task with the same inputs is not run again
    note: str = ""  # why there are no metrics, and what to do for them, where the masks of a split are withheld
    version: int = RESULT_VERSION

    @property
    def coverage(self) -> Coverage:
        """The least complete coverage among the datasets."""
        order: list[Coverage] = ["sample", "subset", "full"]
        return min((dataset.coverage for dataset in self.datasets.values()), key=order.index)


def write_result(folder: Path, result: Result) -> Path:
    """Write `folder/result.json` atomically; call it last. Returns its path."""
    path = folder / RESULT_FILE
    write_text_atomically(path, json.dumps(json_values(result), indent=1, allow_nan=False, default=str) + "\n")
    return path


def json_values(result: Result) -> dict[str, Any]:
    """What the file holds."""
    content: dict[str, Any] = _nan_to_null(dataclasses.asdict(result))
    if not result.note:
        del content["note"]  # as it was before there were notes
    return content


def read_result(path: Path) -> Result:
    """Read a result file; ResultError, which names it, if it is damaged, incomplete or of another version."""
    from common.images import read_file  # loads Pillow

    try:
        content = parse_json(read_file(path).decode())
    except (OSError, ValueError) as error:
        raise ResultError(f"{path}: not a readable result file ({error})") from error
    if not isinstance(content, dict) or "version" not in content:
        raise ResultError(f"{path}: not a result file (no version)")
    if (version := content["version"]) != RESULT_VERSION:
        newer = isinstance(version, int) and version > RESULT_VERSION
        advice = "a newer PatchBench wrote it, update this one" if newer else "run the task again"
        raise ResultError(f"{path}: result version {version}, this PatchBench reads {RESULT_VERSION}; {advice}")
    try:
        return _result_from_dict(content)
    except (KeyError, TypeError, AttributeError) as error:
        raise ResultError(f"{path}: incomplete result ({error}); run the task again") from error


def read_arrays(path: Path) -> "dict[str, NDArray[np.generic]]":
    """The arrays of the single items behind a result, from an .npz file; ValueError, which names it, if it is damaged."""
    import numpy as np  # which commands that only answer `--help` need not load

    from common.images import read_file

    try:
        with np.load(io.BytesIO(read_file(path)), allow_pickle=False) as archive:
            if (stated := sum(member.file_size for member in archive.zip.infolist())) > _MOST_BYTES:
                raise ValueError(f"{stated:,} bytes of arrays")
            return {name: np.asarray(array) for name, array in archive.items()}
    except OSError:
        raise
    except Exception as error:  # zipfile, zlib and numpy raise a dozen types for damage, some of them Python's tokenizer's
        raise ValueError(f"{path}: damaged arrays ({error!r})") from error


def _result_from_dict(content: dict[str, Any]) -> Result:
    parts = {
        "protocol": Protocol(**content["protocol"]),
        "metrics": {name: Metric(**_null_to_nan(values)) for name, values in content["metrics"].items()},
        "breakdown": {item: _null_to_nan(values) for item, values in content["breakdown"].items()},
        "datasets": {role: Dataset(**values) for role, values in content["datasets"].items()},
        "backbone": BackboneRecord(**content["backbone"]),
        "environment": Environment(**content["environment"]),
    }
    return Result(**{**content, **parts})


def _null_to_nan(values: dict[str, Any]) -> dict[str, Any]:
    return {name: math.nan if value is None else value for name, value in values.items()}


def _nan_to_null(value: Any) -> Any:
    if isinstance(value, dict):
        return {str(key): _nan_to_null(item) for key, item in value.items()}
    if isinstance(value, (list, tuple)):
        return [_nan_to_null(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
