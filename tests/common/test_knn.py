import math

import numpy as np
import pytest
import torch

from common.knn import classify, rank_of_truth, vote
from common.neighbours import Neighbours, RowsInMemory, find_neighbours
from tests.common.test_neighbours import CPU, random_rows


def published_accuracy(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, k: int, classes: int
) -> tuple[float, float]:
    """Weighted k-NN as DINO's `eval_knn.py` (7c446df) defines it, image by image in float64: shares of right answers."""
    train = train / np.linalg.norm(train, axis=1, keepdims=True)
    hits = np.zeros(2)
    for features, label in zip(test / np.linalg.norm(test, axis=1, keepdims=True), test_labels, strict=True):
        cosines = train @ features
        nearest = np.argsort(-cosines)[:k]
        votes = np.zeros(classes)
        for place in nearest:
            votes[train_labels[place]] += math.exp(cosines[place] / 0.07)
        ranking = np.argsort(-votes, kind="stable")
        hits += [label == ranking[0], label in ranking[:5]]
    return float(hits[0] / len(test)), float(hits[1] / len(test))


@pytest.mark.parametrize("k", [10, 20, 100, 200])
def test_equals_the_published_classifier_in_float64(k: int) -> None:
    classes = 12
    train_labels, test_labels = (np.random.default_rng(seed).integers(0, classes, size) for seed, size in ((0, 600), (1, 150)))
    centres = random_rows(classes, 5)
    train, test = centres[train_labels] + random_rows(600, 2, 1.5), centres[test_labels] + random_rows(150, 3, 1.5)
    neighbours = find_neighbours(test, RowsInMemory(train), 200, CPU, 64, 100)
    ranks = classify(neighbours, torch.from_numpy(train_labels), torch.from_numpy(test_labels), [k], 0.07, classes)[k]
    top1, top5 = published_accuracy(train.double().numpy(), train_labels, test.double().numpy(), test_labels, k, classes)
    assert float((ranks < 1).double().mean()) == top1
    assert float((ranks < 5).double().mean()) == top5
    assert 1 / classes < top1 < top5 < 1  # a comparison of anything but all or nothing


def test_votes_by_hand() -> None:
    neighbours = Neighbours(torch.tensor([[0.9, 0.5, 0.4]], dtype=torch.float64), torch.tensor([[2, 0, 1]]))
    labels = torch.tensor([1, 1, 0])
    votes = vote(neighbours, labels, 3, 0.5, 3)[0]
    assert votes.tolist() == pytest.approx([math.exp(1.8), math.exp(1.0) + math.exp(0.8), 0])
    assert vote(neighbours, labels, 1, 0.5, 3)[0].tolist() == pytest.approx([math.exp(1.8), 0, 0])


def test_of_equal_scores_the_lower_class_comes_first() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0]]).expand(4, 4)
    assert rank_of_truth(scores, torch.arange(4)).tolist() == [2, 0, 1, 3]


def test_no_number_is_no_right_answer() -> None:
    # A diverged probe would have been right about everything: comparisons with NaN are false.
    scores = torch.tensor([[torch.nan, torch.nan, torch.nan], [0.0, torch.nan, 1.0]])
    assert rank_of_truth(scores, torch.tensor([1, 2])).tolist() == [3, 1]
