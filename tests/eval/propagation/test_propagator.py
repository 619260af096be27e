from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from backbones.build import build_backbone
from eval.davis.data import DavisSplit, find_sequences
from eval.propagation.features import FeatureExtractor, input_size, read_frame
from eval.propagation.labels import channel_ids, compete, first_labels, to_mask
from eval.propagation.propagator import LabelPropagator, propagate_labels, propagate_sequence
from eval.propagation.protocol import LOWEST_TEMPERATURE, RULES, ProtocolName, Rules
from tests.eval.davis.conftest import HEIGHT, SPECS, draw_sequence
from tests.references import davis_propagation as reference

DINO, FIXED = RULES["dino"], RULES["fixed"]


def reference_labels(target_hwD: Tensor, context: Tensor, labels: Tensor, radius: int, topk: int, temperature: float) -> Tensor:
    h, w, _ = target_hwD.shape
    result_Chw = reference.propagate_labels(
        target_hwD.flatten(0, 1),
        [features.flatten(0, 1).T for features in context],
        [soft.permute(2, 0, 1) for soft in labels],
        reference.reachable(h, w, radius) if radius else None,
        topk,
        temperature,
    )
    return result_Chw.permute(1, 2, 0)


def random_frames(seed: int, frames: int, h: int, w: int) -> tuple[Tensor, Tensor, Tensor]:
    torch.manual_seed(seed)
    features = F.normalize(torch.randn(frames + 1, h, w, 8), dim=-1)
    return features[0], features[1:], torch.rand(frames, h, w, 3).softmax(-1)


@settings(max_examples=60, deadline=None)
@given(
    seed=st.integers(0, 99),
    frames=st.integers(1, 4),
    h=st.integers(1, 13),
    w=st.integers(1, 29),
    radius=st.integers(0, 6),
    topk=st.integers(1, 6),
)
def test_windows_give_what_the_dense_way_gives(seed: int, frames: int, h: int, w: int, radius: int, topk: int) -> None:
    topk = min(topk, frames * h * w)
    target, context, labels = random_frames(seed, frames, h, w)
    expected = reference_labels(target, context, labels, radius, topk, 0.1)
    rules = replace(DINO, neighbourhood_radius=radius, topk=topk)
    torch.testing.assert_close(propagate_labels(target, context, labels, rules), expected)


def test_ties_at_the_last_place_all_count() -> None:
    # A video that stands still: each source appears once per context frame, so the best one fills four places and the fifth is tied.
    target, context, _ = random_frames(0, 1, 6, 7)
    still, labels = context.repeat(4, 1, 1, 1), random_frames(1, 4, 6, 7)[2]
    five, eight = (replace(DINO, neighbourhood_radius=2, topk=topk) for topk in (5, 8))
    found = propagate_labels(target, still, labels, five)
    torch.testing.assert_close(found, reference_labels(target, still, labels, 2, 5, 0.1))
    torch.testing.assert_close(found, propagate_labels(target, still, labels, eight))


def test_channels_are_stretched_before_they_compete() -> None:
    labels = torch.tensor([0.9, 0.1]).repeat(2, 2, 1)
    labels[0, 0] = torch.tensor([0.7, 0.3])
    ids = compete(labels, DINO, 4, (8, 8))
    assert (ids.shape, ids.dtype) == ((8, 8), torch.uint8)
    assert ids[0, 0] == 1  # although the background's 0.7 is more
    assert ids[-1, -1] == 0
    # A channel without contrast wins, unless it is empty.
    for winner, flat in enumerate(torch.eye(2)):
        assert compete(flat.expand(3, 3, 2), DINO, 2, (6, 6)).eq(winner).all()


@pytest.mark.parametrize("family", SPECS)
def test_no_step_depends_on_what_the_device_found(family: str, tmp_path: Path) -> None:
    # Tensors on the device `meta` have no content: whoever looks at it, as one must wait for a GPU to do, gets an error.
    draw_sequence(tmp_path, "boat", 0, frames=12)
    (sequence,) = find_sequences(DavisSplit(root=tmp_path, split="all"), all_masks=False)
    extract = FeatureExtractor(build_backbone(SPECS[family]), None, torch.device("meta"))
    for name, frames in (("dino", 12), ("dinov3", 3), ("crw", 3)):
        rules = replace(RULES[name], short_side=64, stretched_to=(64, 96))
        size = input_size(*sequence.size, rules, extract.input_multiple)
        images = [read_frame(path, size, rules) for path in sequence.frames[:frames]]
        start = partial(first_labels, sequence.first_mask(), input_size=size, rules=rules)
        masks = [compete(labels, rules, extract.stride, size) for labels in propagate_sequence(images, start, extract, rules)]
        assert len(masks) == frames - 1
        assert all(ids.is_meta for ids in masks)
        assert name == "crw" or all(ids.dtype == torch.uint8 and len(ids) == HEIGHT for ids in masks)


def test_only_the_fixed_protocol_carries_an_object_that_is_too_thin_for_the_grid() -> None:
    mask = np.zeros((64, 64), np.uint8)
    mask[8:24] = 1
    mask[32] = 2  # patches have 8 pixels, and nearest neighbour takes one of the middle
    published, fixed = (first_labels(mask, (8, 8), mask.shape, rules) for rules in (DINO, FIXED))
    assert (published.shape, fixed.shape) == ((8, 8, 2), (8, 8, 3))
    assert published[1:3, :, 1].eq(1).all()
    assert fixed[4, :, 2].eq(1 / 8).all()
    torch.testing.assert_close(fixed.sum(-1), torch.ones(8, 8))
    extract = FeatureExtractor(build_backbone(SPECS["vit"]), None, torch.device("cpu"))
    image = torch.rand(3, 64, 64, generator=torch.Generator().manual_seed(0))
    for rules, labels, kept in ((DINO, published, [0, 1]), (FIXED, fixed, [0, 1, 2])):
        (labels_hwC,) = propagate_sequence([image, image], lambda _, given=labels: given, extract, rules)
        ids_HW = to_mask(compete(labels_hwC, rules, 8, (64, 64)), rules, channel_ids(mask, rules), (64, 64), (64, 64))
        assert np.unique(ids_HW).tolist() == kept


def test_the_lowest_temperature_gives_numbers() -> None:
    target, context, labels = random_frames(0, 1, 4, 4)
    found = LabelPropagator(context[0], labels[0], replace(DINO, temperature=LOWEST_TEMPERATURE)).step(target)
    assert torch.isfinite(found).all()
    torch.testing.assert_close(found, propagate_labels(target, context, labels, replace(DINO, temperature=LOWEST_TEMPERATURE)))


def dense_crw(features: Tensor, labels: Tensor, rules: Rules) -> Tensor:
    """Labels of all frames as CropMAE's code makes them: copies of the first frame before it, and a dense mask."""
    h, w = features.shape[1:3]
    places = torch.cartesian_prod(torch.arange(h), torch.arange(w)).float()
    apart_NN = torch.where(torch.cdist(places, places) < (rules.neighbourhood_radius or torch.inf), 0.0, -1e10)
    padded = [features[0]] * rules.n_last_frames + list(features)
    soft = [labels.flatten(0, 1)] * (rules.n_last_frames + 1)
    for now in range(rules.n_last_frames + 1, len(padded)):
        context = [0, *range(now - rules.n_last_frames, now)]
        similarities = [padded[now].flatten(0, 1) @ padded[then].flatten(0, 1).T for then in context]
        affinity = torch.cat([similarities[0], *(similarity + apart_NN for similarity in similarities[1:])], dim=1)
        best = affinity.topk(rules.topk, dim=1)
        weights = (best.values / rules.temperature).softmax(1)
        soft.append((weights[..., None] * torch.cat([soft[then] for then in context])[best.indices]).sum(1))
    return torch.stack(soft[rules.n_last_frames :]).unflatten(1, (h, w))


@settings(max_examples=40, deadline=None)
@given(
    seed=st.integers(0, 99),
    n_last_frames=st.integers(0, 4),
    h=st.integers(3, 20),
    w=st.integers(3, 20),
    radius=st.integers(0, 7),
    topk=st.integers(1, 9),
)
def test_counted_copies_and_strips_give_what_the_dense_way_gives(
    seed: int, n_last_frames: int, h: int, w: int, radius: int, topk: int
) -> None:
    rules = replace(RULES["crw"], n_last_frames=n_last_frames, neighbourhood_radius=radius, topk=topk)
    first, others, labels = random_frames(seed, 7, h, w)
    features = torch.stack([first, *others])
    propagator = LabelPropagator(first, labels[0], rules)
    found = torch.stack([labels[0], *(propagator.step(frame) for frame in others)])
    torch.testing.assert_close(found, dense_crw(features, labels[0], rules), atol=1e-5, rtol=0)


class LargestTensor(TorchDispatchMode):
    elements = 0

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Any = None) -> Any:
        result = func(*args, **(kwargs or {}))
        self.elements = max(self.elements, *(item.numel() for item in tree_leaves(result) if isinstance(item, Tensor)), 0)
        return result


@pytest.mark.parametrize("protocol", ["dino", "dinov3", "crw"])
def test_memory_grows_neither_with_the_video_nor_with_the_square_of_the_grid(protocol: ProtocolName) -> None:
    h, w, rules = 40, 60, replace(RULES[protocol], n_last_frames=2, neighbourhood_radius=2)
    features = F.normalize(torch.rand(h, w, 4), dim=-1)
    propagator = LabelPropagator(features, torch.rand(h, w, 2), rules)
    largest = []
    for _ in range(2):
        with LargestTensor() as recorded:
            for _ in range(4):
                propagator.step(features)
        largest.append(recorded.elements)
    assert largest[0] == largest[1] < (h * w) ** 2 // 5
    held = sum(tensor.numel() for tensor in vars(propagator).values() if isinstance(tensor, Tensor))
    assert held == 3 * h * w * (4 + 2)
