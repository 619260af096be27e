"""What every task does before and after its work: whether its inputs were evaluated before, and the record of what came out.

A folder is continued or read again only for the same inputs, and a difference is named. Loads no torch.
"""

import contextlib
import importlib.metadata
import json
import logging
import math
import platform
import re
import subprocess
import time
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from backbones.spec import BackboneSpec, ForeignSpec, architecture_name, is_function_name, spec_to_dict
from common.files import LOCK_FILE, parse_json, remove_leftovers, text_sha256, write_text_atomically
from eval.findings import first_few
from eval.result import (
    RESULT_FILE,
    SAMPLE_MARKER,
    BackboneRecord,
    Coverage,
    Dataset,
    Environment,
    Metric,
    Protocol,
    Result,
    ResultError,
    read_result,
)

if TYPE_CHECKING:
    import torch

    from backbones.file import BackboneFile

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"
# Seconds that earlier parts of an interrupted run took, when the present one began, and the digest of the run's inputs.
_PARTS_FILE = ".parts.json"

_SHOWN = 4
_DIGEST = re.compile(r"[0-9a-f]{64}")

Inputs = dict[str, Any]  # Everything that determines a task's metrics; JSON-ready.

PACKAGES = (
    *("torch", "torchvision", "timm", "numpy", "opencv-python-headless", "pillow", "scipy", "pycocotools"),
    *("onedl-mmengine", "onedl-mmcv", "onedl-mmdetection", "onedl-mmsegmentation"),
)


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One task on one backbone, checked and ready to run; `datasets` are `test`, and `train` where the task learns."""

    task: str
    options: Any  # The task's config, a dataclass; every task's has `backbone`, `name`, `output` and `seed`.
    backbone: "BackboneFile"
    protocol: Protocol
    datasets: dict[str, Dataset]

    @property
    def seed(self) -> int:
        return int(self.options.seed)

    @property
    def inputs(self) -> Inputs:
        return _inputs(self)

    @property
    def inputs_sha256(self) -> str:
        return inputs_digest(self.inputs)

    def finished(self) -> Result | None:
        """The result that the output folder holds; ResultError if it is damaged or of other inputs, so that none is overwritten."""
        path = self.options.output / RESULT_FILE
        if not path.exists():
            return None
        found = read_result(path)
        if found.inputs_sha256 != self.inputs_sha256:
            changed = differences(_inputs(found), self.inputs)
            raise ResultError(f"{path}: made from other inputs ({changed}); choose another --output or remove it")
        logger.info("%s is finished with the same inputs; not run again", self.options.output)
        if self.options.name not in ("", found.backbone.name):
            logger.warning("it keeps the name %s; for a row of another name, give another --output", found.backbone.name)
        return found

    @contextlib.contextmanager
    def begun(self, is_complete: Callable[[Result], bool] = lambda _: True) -> Iterator[Result | None]:
        """Give the result that the output folder holds, or None; unless it is complete, no other run may write there meanwhile.

        All processes of a run call this together.
        """
        from common.distributed import hold_folder, rank, wait_for_all  # loads torch, as whoever runs a task has done

        finished = self.finished()
        wait_for_all()  # so that a fast process does not write a result before a slow one has looked for it
        if finished is not None and is_complete(finished):
            yield finished
            return
        with hold_folder(self.options.output):
            finished = self.finished()  # perhaps by the run that held the folder until now
            if rank() == 0 and finished is None:
                remove_leftovers(self.options.output, "**/.*.tmp.*")
                _begin_part(self.options.output, self.inputs_sha256)
                self.write_config()
            yield finished

    def write_config(self) -> None:
        text = json.dumps(asdict(self.options), indent=1, default=str)
        write_text_atomically(self.options.output / CONFIG_FILE, text + "\n")

    def record(
        self,
        metrics: dict[str, Metric],
        breakdown: dict[str, dict[str, float]],
        artefacts: dict[str, str],
        device: "torch.device",
        start: float,
        further_config: Mapping[str, Any] | None = None,
    ) -> Result:
        """Put together what `result.json` holds of a run that began at `start` (`time.monotonic`).

        `further_config` is recorded beside the options.
        """
        from common.distributed import peak_memory_bytes  # loads torch, as whoever has a device has done

        if empty := [name for name, metric in metrics.items() if math.isnan(metric.value)]:
            raise ValueError(f"{self.task}: no value for {', '.join(empty)}, since nothing counts there; no result is written")
        return Result(
            task=self.task,
            protocol=self.protocol,
            metrics=metrics,
            breakdown=breakdown,
            datasets=self.datasets,
            backbone=BackboneRecord(
                name=self.options.name or _default_name(self.options.backbone),
                sha256=self.backbone.sha256,
                spec=spec_to_dict(self.backbone.spec),
                source=asdict(self.backbone.source),
            ),
            config={**asdict(self.options), **(further_config or {})},
            seed=self.options.seed,
            environment=_environment(device),
            wall_time_s=_earlier_parts(self.options.output, self.inputs_sha256)[0] + time.monotonic() - start,
            peak_memory_bytes=peak_memory_bytes(device),
            artefacts=artefacts,
            inputs_sha256=self.inputs_sha256,
        )


def _default_name(backbone: Path) -> str:
    return str(backbone) if is_function_name(backbone) else backbone.stem


def unpublished(spec: BackboneSpec) -> dict[str, list[Any]]:
    """The deviation that a network of another family than ours is: no protocol of ours is published for it."""
    if not isinstance(spec, ForeignSpec):
        return {}
    return {"backbone": ["ViT, DINOv3, Swin or ResNet", f"{architecture_name(spec_to_dict(spec))} ({spec.family})"]}


def _earlier_parts(folder: Path, inputs: str) -> tuple[float, float]:
    """How many seconds a run with these inputs has taken before its present part, and when that began in seconds since the epoch."""
    path = folder / _PARTS_FILE
    if not path.exists():
        return 0.0, 0.0
    try:
        seconds, begin, its_inputs = parse_json(path.read_text(encoding="utf-8"))
        seconds, begin = float(seconds), float(begin)
    except (TypeError, ValueError) as error:
        raise ValueError(f"{path}: damaged ({error}); remove it, and the time of earlier parts is lost") from error
    return (seconds, begin) if its_inputs == inputs else (0.0, 0.0)


def _begin_part(folder: Path, inputs: str) -> None:
    """Add the time of a part that was interrupted to those before it; what has no other sign of its end ended with its last file."""
    seconds, begin = _earlier_parts(folder, inputs)
    if begin:
        # The present part has already written the lock, and changed folders by removing leftovers.
        files = [path for path in folder.rglob("*") if path.is_file() and path.name != LOCK_FILE]
        seconds += max(0.0, max(path.stat().st_mtime for path in files) - begin)
    write_text_atomically(folder / _PARTS_FILE, json.dumps([seconds, time.time(), inputs]) + "\n")


def inputs_digest(inputs: Inputs) -> str:
    return text_sha256(json.dumps(inputs, sort_keys=True))


def _inputs(given: Evaluation | Result) -> Inputs:
    inputs = {
        "task": given.task,
        "protocol": asdict(given.protocol),
        "datasets": {role: asdict(dataset) for role, dataset in given.datasets.items()},
        "backbone": given.backbone.sha256,
        "seed": given.seed,
    }
    return dict(json.loads(json.dumps(inputs, sort_keys=True, default=str)))


def differences(before: Mapping[str, Any], now: Mapping[str, Any]) -> str:
    """Name the first few differences, such as `protocol.settings.epochs 12 -> 3, seed 0 -> 1`."""

    def in_words(name: str) -> str:
        old, new = earlier.get(name, "absent"), later.get(name, "absent")
        if _DIGEST.fullmatch(str(old)):  # which would tell nothing
            return f"other {name.removesuffix('.listing_sha256')}"
        return f"{name} {old} -> {new}"

    # Deviations repeat settings.
    earlier, later = (
        {name: value for name, value in _flat(inputs) if not name.startswith("protocol.deviations")} for inputs in (before, now)
    )
    names = [name for name in {**earlier, **later} if earlier.get(name) != later.get(name)]
    return first_few(map(in_words, names), _SHOWN)


def _flat(values: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    for name, value in values.items():
        if isinstance(value, Mapping):
            yield from _flat(value, f"{prefix}{name}.")
        else:
            yield prefix + name, value


def describe_dataset(
    root: Path, name: str, split: str, items: Iterable[str], full_size: int, restricted: bool = False, content: str = ""
) -> Dataset:
    """Fingerprint one split, such as `val2017` of `COCO 2017`, in the folder `root`.

    Each of `items` identifies one (name; also frame count, size or annotation count where known), and the whole published split has
    `full_size`; `restricted`: the user asked for a part of it. `content` is a digest of, for example, the items' annotations.
    """
    listing = sorted(items)
    coverage: Coverage = "full" if len(listing) == full_size and not restricted else "subset"
    if (root / SAMPLE_MARKER).exists():
        coverage = "sample"
    digest = text_sha256("\n".join([*listing, content] if content else listing))
    return Dataset(name=name, split=split, num_items=len(listing), listing_sha256=digest, coverage=coverage)


def _environment(device: "torch.device") -> Environment:
    import torch

    from common.distributed import world_size

    packages = {"python": platform.python_version()}
    for package in PACKAGES:
        with contextlib.suppress(importlib.metadata.PackageNotFoundError):  # a task runs with only the packages that it needs
            packages[package] = importlib.metadata.version(package)
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        code = subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        code = "unknown"
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Environment(device=name, world_size=world_size(), threads=torch.get_num_threads(), packages=packages, code=code)


def metrics_line(folder: Path, found: Result) -> str:
    """The output of `python -m eval`: the metrics, how much of the data they are of, and where the rest is."""
    if found.note:
        return f"{found.note}  {folder / RESULT_FILE}"
    decimals = {name: 2 if metric.unit == "percent" else 3 for name, metric in found.metrics.items()}
    metrics = "  ".join(f"{name} {metric.value:.{decimals[name]}f}" for name, metric in found.metrics.items())
    return f"{metrics}  ({found.coverage} data)  {folder / RESULT_FILE}"
