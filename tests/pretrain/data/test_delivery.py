"""Bytes become networks' inputs; colours changed by the batch are those changed view by view."""

from pathlib import Path

import numpy as np
import pytest
import torch
from torch import Tensor

from pretrain.config import ViewsConfig
from pretrain.data.delivery import network_inputs
from pretrain.data.images import images_of_folder
from pretrain.data.loader import Batch, Collate, ImageKey, MultiCropImages
from pretrain.data.views import IMAGENET_DEVIATION, IMAGENET_MEAN, view_kinds

KINDS = view_kinds(ViewsConfig(global_size=64, local_size=32, local_crops=4))
CPU = torch.device("cpu")


def batch(folder: Path, colours: bool) -> Batch:
    dataset = MultiCropImages(images_of_folder(folder), KINDS, seed=1, colours=colours)
    return Collate(colours=colours)([dataset[ImageKey(epoch, index)] for epoch in range(4) for index in range(12)])


def levels(inputs: Tensor) -> Tensor:
    mean, deviation = (torch.tensor(values)[:, None, None] for values in (IMAGENET_MEAN, IMAGENET_DEVIATION))
    return (inputs * deviation + mean) * 255


def test_bytes_are_normalised(image_folder: Path) -> None:
    made = batch(image_folder, colours=True)
    for crops, inputs in zip(made.crops, network_inputs(made, CPU), strict=True):
        assert inputs.dtype == torch.float32
        assert inputs.is_contiguous()
        torch.testing.assert_close(levels(inputs), crops.float(), atol=1e-3, rtol=0)


def test_colours_on_the_device_are_the_workers(image_folder: Path) -> None:
    """Every operation acts in some of the 48 images: on average within half a level, most values within one."""
    here, there = batch(image_folder, colours=True), batch(image_folder, colours=False)
    draws = there.colours[1]
    assert draws.jitter_V.any()
    assert draws.grey_V.any()
    assert draws.solarise_V.any()
    assert (draws.radius_V > 0).any()
    for crops, plain, inputs in zip(here.crops, there.crops, network_inputs(there, CPU), strict=True):
        difference = (levels(inputs) - crops.float()).abs()
        per_image = difference.flatten(1)
        assert difference.mean() < 0.5
        assert (difference > 2.5).float().mean() < 0.02
        # Solarisation may tear levels round 128 apart, in few pixels.
        assert per_image.mean(dim=1).max() < 3
        assert (plain.float() - crops.float()).abs().mean() > 5, "colours do change"


def test_colours_on_the_device_repeat_themselves(image_folder: Path) -> None:
    first, again = (network_inputs(batch(image_folder, colours=False), CPU) for _ in range(2))
    assert all(map(torch.equal, first, again))


def test_views_do_not_depend_on_their_neighbours_in_the_batch(image_folder: Path) -> None:
    whole = batch(image_folder, colours=False)
    part = Batch(
        crops=[crops[5:9] for crops in whole.crops],
        boxes=[boxes[5:9] for boxes in whole.boxes],
        colours=[type(draws)(*(values[5:9] for values in draws)) for draws in whole.colours],
        failures={},
    )
    for all_inputs, inputs in zip(network_inputs(whole, CPU), network_inputs(part, CPU), strict=True):
        torch.testing.assert_close(all_inputs[5:9], inputs, atol=0, rtol=0)


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_colours_on_a_gpu_are_those_on_the_cpu(image_folder: Path) -> None:
    made = batch(image_folder, colours=False)
    pinned = made.pin_memory()
    assert all(crops.is_pinned() for crops in pinned.crops)
    for on_cpu, on_gpu in zip(network_inputs(made, CPU), network_inputs(pinned, torch.device("cuda")), strict=True):
        difference = (levels(on_cpu) - levels(on_gpu.cpu())).abs().numpy()
        assert np.median(difference) == 0
        assert difference.mean() < 0.05
