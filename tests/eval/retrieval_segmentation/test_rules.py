"""Votes and choices that no recording covers: CAPI's majority, and patches without any class."""

import torch

from eval.retrieval_segmentation.rules import predict_by_majority, sample_patches


def test_most_neighbours_decide_pixel_by_pixel_and_the_lowest_of_equally_many() -> None:
    pixels_UP = torch.tensor([[1, 2, 3, 4], [1, 5, 3, 9], [7, 2, 3, 9]], dtype=torch.uint8)
    assert predict_by_majority(torch.tensor([[0, 1, 2]]), pixels_UP).tolist() == [[1, 2], [3, 9]]
    assert predict_by_majority(torch.tensor([[1, 0]]), pixels_UP).tolist() == [[1, 2], [3, 4]]


def test_patches_without_a_class_are_remembered_last() -> None:
    counts_NC, draws_N = torch.tensor([[0, 0], [4, 0], [0, 1]]), torch.tensor([0.0, 0.9, 0.8])
    assert sample_patches(counts_NC, draws_N, 3).tolist() == [2, 1, 0]
