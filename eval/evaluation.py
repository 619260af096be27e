"""The frame around every task: what it is given, whether that was done before, and the record of what came out."""

import dataclasses
import json
import logging
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, ClassVar, Protocol

import torch

from backbones.file import BackboneFile
from common.files import write_text_atomically
from eval import result
from eval.inputs import Inputs, describe_inputs, finished_result, inputs_digest
from eval.provenance import describe_backbone, describe_environment
from eval.result import RESULT_FILE, Dataset, Metric, Result

logger = logging.getLogger(__name__)

CONFIG_FILE = "config.json"


class TaskOptions(Protocol):
    """What every task's config, a dataclass, has."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def backbone(self) -> Path:
        """The backbone file."""

    @property
    def name(self) -> str:
        """The run's name; empty for that of the backbone file."""

    @property
    def output(self) -> Path:
        """Folder of the result."""

    @property
    def seed(self) -> int:
        """Of everything random."""


@dataclass(frozen=True, kw_only=True)
class Figures:
    """What a task measured."""

    metrics: dict[str, Metric]
    """In the order of the tables."""
    breakdown: dict[str, dict[str, float]]
    """Per class or object."""
    artefacts: dict[str, str]
    """The task's own files: name -> path in the output folder."""


@dataclass(frozen=True, kw_only=True)
class Evaluation:
    """One task on one backbone, checked and ready to run."""

    task: str
    """As in `python -m eval TASK`."""
    options: TaskOptions
    """The task's config."""
    backbone: BackboneFile
    """On what network."""
    protocol: result.Protocol
    """How the figures come about."""
    datasets: dict[str, Dataset]
    """`test`, and `train` where the task learns."""

    @property
    def inputs(self) -> Inputs:
        """Everything that determines the figures."""
        return describe_inputs(self.task, self.protocol, self.datasets, self.backbone.sha256, self.options.seed)

    def finished(self) -> Result | None:
        """The result that the output folder holds, if it was made from the same inputs; says so.

        Raises:
            ResultError: If it holds one of other inputs, or a damaged one.
        """
        found = finished_result(self.options.output, self.inputs)
        if found is not None:
            logger.info("%s is finished with the same inputs; not run again", self.options.output)
            if self.options.name not in ("", found.backbone.name):
                logger.warning("it keeps the name %s; for a row of another name, give another --output", found.backbone.name)
        return found

    def write_config(self) -> None:
        """Write the options beside the place of the result, before the run starts."""
        text = json.dumps(dataclasses.asdict(self.options), indent=1, default=str)
        write_text_atomically(self.options.output / CONFIG_FILE, text + "\n")

    def record(
        self,
        figures: Figures,
        device: torch.device,
        world_size: int,
        wall_time_s: float,
        peak_memory_bytes: int,
        further_config: Mapping[str, Any] | None = None,
    ) -> Result:
        """What `result.json` holds.

        Args:
            figures: What came out.
            device: Where it ran.
            world_size: Number of processes.
            wall_time_s: See `Result`.
            peak_memory_bytes: See `Result`.
            further_config: To be recorded beside the options.
        """
        return Result(
            task=self.task,
            protocol=self.protocol,
            metrics=figures.metrics,
            breakdown=figures.breakdown,
            datasets=self.datasets,
            backbone=describe_backbone(self.options.name or self.options.backbone.stem, self.backbone),
            config={**dataclasses.asdict(self.options), **(further_config or {})},
            seed=self.options.seed,
            environment=describe_environment(device, world_size),
            wall_time_s=wall_time_s,
            peak_memory_bytes=peak_memory_bytes,
            artefacts=figures.artefacts,
            inputs_sha256=inputs_digest(self.inputs),
        )


def figures_line(options: TaskOptions, found: Result) -> str:
    """The command's own output: the figures, of what data, and where the rest is."""
    figures = "  ".join(f"{name} {metric.value:.2f}" for name, metric in found.metrics.items())
    return f"{figures}  ({found.coverage} data)  {options.output / RESULT_FILE}"
