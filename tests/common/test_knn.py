import math

import numpy as np
import pytest
import torch
from torch import Tensor

from common.knn import classify, find_neighbours, rank_of_truth

CPU = torch.device("cpu")


def exhaustive(queries_TD: Tensor, bank_ND: Tensor, k: int) -> tuple[np.ndarray, np.ndarray]:
    """Every cosine in float64, sorted by similarity (to 12 decimals), then by index."""
    queries, bank = queries_TD.double().numpy(), bank_ND.double().numpy()
    queries = queries / np.linalg.norm(queries, axis=1, keepdims=True)
    bank = bank / np.linalg.norm(bank, axis=1, keepdims=True)
    cosines = queries @ bank.T
    order = np.argsort(-np.round(cosines, 12), axis=1, kind="stable")[:, :k]
    return np.take_along_axis(cosines, order, axis=1), order


def random_rows(count: int, seed: int, scale: float = 1.0) -> Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randn(count, 24, generator=generator) * scale + 0.5


# Cosines of the last bank's first rows with the query differ by about 1e-10: the float32 product orders these rows by chance.
NEAR = torch.ones(400, 24)
NEAR[:, 0] += torch.from_numpy(np.random.default_rng(0).permutation(400) * 2e-6).float()
REPEATED = random_rows(60, 0).repeat(5, 1)[torch.randperm(300, generator=torch.Generator().manual_seed(2))]


@pytest.mark.parametrize(
    ("bank", "queries", "k", "rows_per_block"),
    [
        (random_rows(700, 0), random_rows(3, 1, scale=3.0), 1, 50),
        (random_rows(700, 0), random_rows(300, 1, scale=3.0), 20, 128),
        (random_rows(700, 0), random_rows(23, 1, scale=3.0), 200, 16384),
        (random_rows(700, 0), random_rows(23, 1, scale=3.0), 700, 33),
        # Of equally near rows the lower comes first, wherever the blocks end.
        *((REPEATED, REPEATED[:40], 33, rows_per_block) for rows_per_block in (7, 64, 300)),
        (torch.cat([NEAR, random_rows(400, 3)]), torch.ones(2, 24), 50, 128),
        (random_rows(700, 0), torch.empty(0, 24), 20, 128),
        (torch.ones(500, 24), torch.ones(3, 24), 20, 64),  # collapsed features
    ],
)
def test_equals_an_exhaustive_search_in_float64(bank: Tensor, queries: Tensor, k: int, rows_per_block: int) -> None:
    similarities, order = exhaustive(queries, bank, k)
    for given in (bank, bank.split(rows_per_block)):
        found = find_neighbours(queries, given, k, CPU)
        np.testing.assert_array_equal(found.indices_Tk, order)
        np.testing.assert_allclose(found.similarities_Tk, similarities, rtol=0, atol=1e-12)


def published_ranks(
    train: np.ndarray, train_labels: np.ndarray, test: np.ndarray, test_labels: np.ndarray, k: int, classes: int
) -> list[int]:
    """The right class's rank for every test image, as DINO's `eval_knn.py` (7c446df) defines it: exhaustive, in float64."""
    train, test = (features / np.linalg.norm(features, axis=1, keepdims=True) for features in (train, test))
    ranks = []
    for image, label in zip(test, test_labels, strict=True):
        cosines = train @ image
        votes = np.zeros(classes)
        for place in np.argsort(-cosines, kind="stable")[:k]:
            votes[train_labels[place]] += math.exp(cosines[place] / 0.07)
        ranks.append(np.argsort(-votes, kind="stable").tolist().index(label))
    return ranks


def test_equals_the_published_classifier_in_float64() -> None:
    classes, ks = 12, (10, 20, 100, 200)
    train_labels, test_labels = (np.random.default_rng(seed).integers(0, classes, size) for seed, size in ((0, 600), (1, 150)))
    centres = random_rows(classes, 5)
    train, test = centres[train_labels] + random_rows(600, 2, 1.5), centres[test_labels] + random_rows(150, 3, 1.5)
    neighbours = find_neighbours(test, train, 200, CPU)
    ranks = classify(neighbours, torch.from_numpy(train_labels), torch.from_numpy(test_labels), ks, 0.07, classes)
    for k in ks:
        expected = published_ranks(train.double().numpy(), train_labels, test.double().numpy(), test_labels, k, classes)
        assert ranks[k].tolist() == expected
        assert 0.1 < np.mean(np.array(expected) < 1) < 0.9  # a comparison of anything but all or nothing


def test_the_rank_of_the_right_class() -> None:
    scores = torch.tensor([[1.0, 3.0, 3.0, 0.0]]).expand(4, 4)
    assert rank_of_truth(scores, torch.arange(4)).tolist() == [2, 0, 1, 3]  # of equal scores the lower class comes first
    # A diverged probe would have been right about everything: comparisons with NaN are false.
    scores = torch.tensor([[torch.nan, torch.nan, torch.nan], [0.0, torch.nan, 1.0]])
    assert rank_of_truth(scores, torch.tensor([1, 2])).tolist() == [3, 1]
