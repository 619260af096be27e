"""The course of a task that leaves the network frozen and has no training to continue."""

from collections.abc import Callable
from typing import Any

import torch

from backbones.build import AnyBackbone, build_backbone
from backbones.file import BackboneFile, load_strictly
from common.distributed import choose_device, process_group, rank, wait_for_all
from eval.record import Evaluation
from eval.result import RESULT_FILE, Dataset, Metric, Protocol, Result, read_result, write_result

Outcome = tuple[dict[str, Metric], dict[str, str]]
"""Metrics and artefacts."""
Work = Callable[[AnyBackbone, torch.device, str], Callable[[], Outcome]]
"""What all processes do with the network, given the digest of the run's inputs; then the first one alone makes the outcome."""


def run_frozen(
    task: str, options: Any, backbone: BackboneFile, protocol: Protocol, datasets: dict[str, Dataset], start: float, work: Work
) -> Result:
    """Run a task that began at `start` (`time.monotonic`), or what is left of it; what is finished is only read."""
    network = build_backbone(backbone.spec)
    load_strictly(network, backbone.state_dict)
    device = choose_device(options.device)
    with process_group(device, "gloo"):
        evaluation = Evaluation(task=task, options=options, backbone=backbone, protocol=protocol, datasets=datasets)
        with evaluation.begun() as finished:
            if finished is not None:
                return finished
            conclude = work(network.to(device).eval(), device, evaluation.inputs_sha256)
            if rank() == 0:
                metrics, artefacts = conclude()
                write_result(options.output, evaluation.record(metrics, {}, artefacts, device, start))
            wait_for_all()
            return read_result(options.output / RESULT_FILE)
