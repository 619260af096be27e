"""The course of a task that leaves the network frozen."""

from collections.abc import Callable, Mapping
from types import MappingProxyType
from typing import Any, NamedTuple

import torch

from backbones.build import AnyBackbone, network_of
from backbones.file import BackboneFile
from common.distributed import choose_device, process_group, rank, wait_for_all
from eval.record import Evaluation
from eval.result import RESULT_FILE, Dataset, Metric, Protocol, Result, read_result, write_result


class Outcome(NamedTuple):
    """What a result holds of the task's work (`Evaluation.record`)."""

    metrics: dict[str, Metric]
    artefacts: dict[str, str]
    breakdown: dict[str, dict[str, float]]
    further_config: Mapping[str, Any] = MappingProxyType({})


Work = Callable[[Evaluation, AnyBackbone, torch.device], Callable[[], Outcome]]
"""What all processes do with the network; then the first one alone makes the outcome."""


def run_frozen(
    task: str, options: Any, backbone: BackboneFile, protocol: Protocol, datasets: dict[str, Dataset], start: float, work: Work
) -> Result:
    """Run a task that began at `start` (`time.monotonic`), or what is left of it; what is finished is only read."""
    network = network_of(backbone.spec, backbone.state_dict)
    device = choose_device(options.device)
    with process_group(device, "gloo"):
        evaluation = Evaluation(task=task, options=options, backbone=backbone, protocol=protocol, datasets=datasets)
        with evaluation.begun() as finished:
            if finished is not None:
                return finished
            conclude = work(evaluation, network.to(device), device)
            if rank() == 0:
                metrics, artefacts, breakdown, further_config = conclude()
                result = evaluation.record(metrics, breakdown, artefacts, device, start, further_config)
                write_result(options.output, result)
            wait_for_all()
            return read_result(options.output / RESULT_FILE)
