# shim: remove
"""The old names of `eval.record`."""

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Any

import torch

from eval import record
from eval.record import CONFIG_FILE as CONFIG_FILE
from eval.record import TaskOptions, metrics_line
from eval.result import Metric, Result


@dataclass(frozen=True, kw_only=True)
class Figures:
    metrics: dict[str, Metric]
    breakdown: dict[str, dict[str, float]]
    artefacts: dict[str, str]


class Evaluation(record.Evaluation):
    def record(  # type: ignore[override]
        self,
        figures: Figures,
        device: torch.device,
        world_size: int,
        wall_time_s: float,
        peak_memory_bytes: int,
        further_config: Mapping[str, Any] | None = None,
    ) -> Result:
        return super().record(
            *(figures.metrics, figures.breakdown, figures.artefacts, device, world_size, wall_time_s, peak_memory_bytes),
            further_config=further_config,
        )


def figures_line(options: TaskOptions, found: Result) -> str:
    return metrics_line(options.output, found)
