"""Dense retrieval in two processes, each of which stores patches and segments images."""

from dataclasses import replace
from pathlib import Path

import pytest

from eval.probes import patches
from eval.result import Result, read_result
from eval.retrieval_segmentation import retrieval, task
from eval.retrieval_segmentation.config import RetrievalSegmentationConfig
from tests.processes import evaluate_in_two


def evaluate(config: RetrievalSegmentationConfig) -> Result:
    """With so small files that every process gets some."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(patches, "_FILE_BYTES", 1)
        patch.setattr(retrieval, "QUERIES_AT_ONCE", 1)
        return task.evaluate(config)


def test_two_processes_give_what_one_gives(config: RetrievalSegmentationConfig, tmp_path: Path) -> None:
    alone = task.evaluate(config)
    two = replace(config, output=tmp_path / "two")
    evaluate_in_two(__name__, two, tmp_path / "processes")
    together = read_result(two.output / "result.json")
    assert together.environment.world_size == 2
    assert together.metrics == alone.metrics
