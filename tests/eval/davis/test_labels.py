import numpy as np
import pytest
import torch

from eval.davis.labels import first_labels, label_map, resize_mask


def thin_object() -> np.ndarray:
    mask = np.zeros((32, 32), np.uint8)
    mask[:, 16:] = 1
    mask[0, 0] = 2  # too thin for a grid of 4 x 4, and the highest id
    return mask


def test_the_published_way_drops_a_thin_object_of_the_highest_id() -> None:
    labels = first_labels(thin_object(), (4, 4), drop_highest_id=True)
    assert labels.shape == (4, 4, 2)
    assert labels[:, 2:, 1].eq(1).all()


def test_the_fixed_way_keeps_every_object() -> None:
    labels = first_labels(thin_object(), (4, 4), drop_highest_id=False)
    assert labels.shape == (4, 4, 3)
    assert labels[0, 0, 2] == pytest.approx(1 / 64)
    torch.testing.assert_close(labels.sum(-1), torch.ones(4, 4))


def test_channels_are_stretched_before_they_compete() -> None:
    labels = torch.zeros(2, 2, 2)
    labels[..., 0], labels[..., 1] = 0.9, 0.1
    labels[0, 0] = torch.tensor([0.7, 0.3])
    ids = label_map(labels, 4)
    assert ids.shape == (8, 8)
    assert ids.dtype == torch.uint8
    assert ids[0, 0] == 1  # although the background's 0.7 is more
    assert ids[-1, -1] == 0


@pytest.mark.parametrize(("background", "first_object", "winner"), [(1.0, 0.0, 0), (0.0, 1.0, 1)])
def test_a_channel_without_contrast_wins_unless_it_is_empty(background: float, first_object: float, winner: int) -> None:
    labels = torch.tensor([background, first_object]).expand(3, 3, 2)
    assert label_map(labels, 2).eq(winner).all()


def test_resizing_keeps_ids() -> None:
    mask = np.array([[0, 3], [7, 0]], np.uint8)
    assert resize_mask(mask, (4, 2)).tolist() == [[0, 3], [0, 3], [7, 0], [7, 0]]
