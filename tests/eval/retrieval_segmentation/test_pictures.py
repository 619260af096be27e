"""Which patch of an image a picture asks about, and how often the memory is read for all of them."""

from dataclasses import replace
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from eval.probes.data import VOID
from eval.probes.pictures import commonest_patch
from eval.retrieval_segmentation import retrieval
from eval.retrieval_segmentation.config import RetrievalSegmentationConfig
from eval.retrieval_segmentation.task import evaluate


def test_a_patch_of_the_commonest_class_asks() -> None:
    truth = torch.full((8, 8), VOID)
    assert commonest_patch(truth, 2, 21) in {(1, 1), (1, 2), (2, 1), (2, 2)}
    truth[:6, :6] = 0
    assert commonest_patch(truth, 2, 21) == (1, 1)
    truth[6:, 4:6] = 7
    assert commonest_patch(truth, 2, 21) == (3, 2)


def test_an_image_without_labels_is_drawn_and_the_memory_is_read_once_for_all(
    config: RetrievalSegmentationConfig, monkeypatch: pytest.MonkeyPatch
) -> None:
    Image.fromarray(np.full((64, 80), VOID, np.uint8)).save(config.data / "SegmentationClass/v1.png")
    asked = []
    original = retrieval.nearest_rows

    def nearest_rows(queries: Any, *given: Any) -> Any:
        asked.append(len(queries) // 64)
        return original(queries, *given)

    monkeypatch.setattr(retrieval, "nearest_rows", nearest_rows)
    result = evaluate(replace(config, pictures=3))
    assert len([name for name in result.artefacts if name.startswith("prediction on ")]) == 3
    assert asked == [3, 3]  # for the metrics, and for the pictures
