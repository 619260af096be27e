"""From images to feature vectors: transforms, the network's outputs, and the files that keep them."""

import os
from dataclasses import replace

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.build import AnyBackbone, build_backbone
from backbones.file import load_backbone, read_backbone_file
from backbones.spec import BackboneSpec, DINOv3Spec, PlainViTSpec, ResNetSpec, SwinSpec
from common.images import IMAGENET_MEAN, IMAGENET_STD
from eval.classification import features as module
from eval.classification.config import ClassificationConfig
from eval.classification.data import read_image, read_splits
from eval.classification.features import FeatureExtractor, centre_crop, extract_features, random_crop_and_flip
from eval.classification.protocol import choose_representation
from eval.probes.cache import FeatureStore
from tests.eval.classification.conftest import SPEC, Configure

CPU = torch.device("cpu")
ALL = torch.arange(27)  # the training images
IMAGES = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
SWIN = SwinSpec(embed_dim=16, depths=(1, 1), num_heads=(2, 2), window_size=4, image_size=32)
RESNET = ResNetSpec(layers=(1, 1, 1, 1))
DINOV3 = DINOv3Spec(embed_dim=32, depth=5, num_heads=2, patch_size=16, hidden_dim=64, register_tokens=2)
WIDE = replace(SPEC, embed_dim=768, num_heads=12, depth=1)
IMAGE = Image.fromarray(np.random.default_rng(0).integers(0, 256, (60, 90, 3), dtype=np.uint8))


@pytest.mark.parametrize(("size", "resized"), [((90, 60), (54, 36)), ((60, 90), (36, 54)), ((40, 40), (36, 36))])
def test_centre_crop(size: tuple[int, int], resized: tuple[int, int]) -> None:
    image = IMAGE.resize(size)
    left, top = (resized[0] - 32) // 2, (resized[1] - 32) // 2
    middle = image.resize(resized, Image.Resampling.BICUBIC).crop((left, top, left + 32, top + 32))
    expected = (np.asarray(middle, np.float32) / 255 - np.array(IMAGENET_MEAN)) / np.array(IMAGENET_STD)
    np.testing.assert_allclose(centre_crop(image, 0, resize=36, crop=32).permute(1, 2, 0), expected, atol=1e-5)


def test_random_crops_depend_on_seed_epoch_and_image_only() -> None:
    first = random_crop_and_flip(IMAGE, 5, crop=32, seed=0, epoch=1)
    torch.manual_seed(99)
    before = torch.get_rng_state()
    for seed, epoch, index in ((0, 1, 5), (1, 1, 5), (0, 2, 5), (0, 1, 6)):
        crop = random_crop_and_flip(IMAGE, index, crop=32, seed=seed, epoch=epoch)
        assert torch.equal(crop, first) == ((seed, epoch, index) == (0, 1, 5))
    assert torch.equal(before, torch.get_rng_state())
    assert first.shape == (3, 32, 32)


def test_half_of_the_images_are_mirrored() -> None:
    ramp = Image.fromarray(np.tile(np.arange(0, 240, 4, dtype=np.uint8)[None, :, None], (60, 1, 3)))
    crops = torch.stack([random_crop_and_flip(ramp, index, crop=16, seed=0, epoch=0) for index in range(200)])
    mirrored = (crops[:, 0, :, 0].mean(1) > crops[:, 0, :, -1].mean(1)).float().mean()
    assert 0.4 < mirrored < 0.6


@pytest.mark.parametrize(
    ("spec", "blocks", "mean_patch", "words"),
    [
        (SPEC, 4, False, "CLS token, last 4 blocks concatenated"),
        (replace(SPEC, register_tokens=2, class_position=False), 4, False, "CLS token, last 4 blocks concatenated"),
        (DINOV3, 4, False, "CLS token, last 4 blocks concatenated"),
        (WIDE, 1, True, "CLS token, last block, and mean patch of the last block"),
        (replace(SPEC, class_token=False), 1, False, "the backbone has no CLS token"),
        (SWIN, 1, False, "the backbone has no CLS token"),
        (RESNET, 1, False, "the backbone has no CLS token"),
        # Other than published.
        (replace(SPEC, class_token=False), 2, None, "last 2 blocks concatenated"),
        (SPEC, 2, True, "CLS token, last 2 blocks concatenated, and mean patch of the last block"),
    ],
)
def test_the_vectors_of_an_image(spec: BackboneSpec, blocks: int, mean_patch: bool | None, words: str) -> None:
    published = choose_representation(spec, None, None)
    representation = choose_representation(spec, blocks, mean_patch)
    assert (representation == published) == (blocks != 2)
    assert words in representation.describe()["linear"]
    torch.manual_seed(0)
    network = build_backbone(spec)
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.2)  # norms too: leaving one out must show
    extractor = FeatureExtractor(network, representation, CPU)
    extractor(IMAGES * 2)  # of one call, nothing is left for the next
    found = extractor(IMAGES)
    with torch.inference_mode():
        if isinstance(spec, PlainViTSpec):
            options = {"return_prefix_tokens": True, "norm": True, "output_fmt": "NLC", "intermediates_only": True}
            outputs = network.forward_intermediates(IMAGES, **options)
            outputs = [output if spec.class_token else (output, None) for output in outputs]
        else:
            outputs = [(network.forward_tokens(IMAGES).patches, None)]
    means = [patches.mean(1) for patches, _ in outputs]
    vectors = [mean if prefix is None else prefix[:, 0] for mean, (_, prefix) in zip(means, outputs, strict=True)]
    torch.testing.assert_close(found["knn"], vectors[-1])
    torch.testing.assert_close(found["linear"], torch.cat([*vectors[-blocks:], *([means[-1]] if mean_patch else [])], dim=1))


def published_extractor(network: AnyBackbone) -> FeatureExtractor:
    return FeatureExtractor(network, choose_representation(network.spec, None, None), CPU)


def test_convolutions_are_not_rounded_to_tf32() -> None:
    extractor, precision = published_extractor(build_backbone(RESNET)), []
    convolution = extractor.backbone.get_submodule("conv1")
    convolution.register_forward_pre_hook(lambda *_: precision.append(torch.backends.cudnn.conv.fp32_precision))
    extractor(IMAGES)
    assert precision == ["ieee"]
    assert torch.backends.cudnn.conv.fp32_precision == "tf32"


def test_features_that_are_not_finite() -> None:
    extractor = published_extractor(build_backbone(SPEC))
    extractor.backbone.get_parameter("norm.weight").data[3] = torch.nan
    with pytest.raises(ValueError, match="not finite; its weights are damaged"):
        extractor(IMAGES)


def extract(config: ClassificationConfig, *names: str, fails_after: int = 10**9) -> tuple[list[FeatureStore], int]:
    """The features of the training images, and how many images went through the backbone for them."""
    extractor, seen = published_extractor(load_backbone(config.backbone)), []

    def count(_: torch.nn.Module, inputs: tuple[torch.Tensor]) -> None:
        if len(seen) >= fails_after:
            raise KeyboardInterrupt
        seen.extend(inputs[0])

    extractor.backbone.get_submodule("patch_embed.proj").register_forward_pre_hook(count)
    images = read_splits(config.data, "train", "val", "").train
    stores = extract_features(config, images, names, read_backbone_file(config.backbone).sha256, extractor)
    return [stores[name] for name in names], len(seen)


def test_each_image_goes_through_the_backbone_once(configure: Configure) -> None:
    config = configure()
    (knn,), images = extract(config, "knn")
    assert images == 27
    before = knn.rows(ALL)
    source = read_splits(config.data, "train", "val", "").train.source
    inputs = [centre_crop(read_image(source, index), index, resize=36, crop=32) for index in range(27)]
    expected = published_extractor(load_backbone(config.backbone))(torch.stack(inputs))
    torch.testing.assert_close(before, expected["knn"])
    (linear, again), images = extract(config, "linear", "knn")
    assert images == 27
    torch.testing.assert_close(linear.rows(ALL), expected["linear"])
    assert torch.equal(again.rows(ALL), before)
    elsewhere = configure(epochs=9, neighbours=[3], output=config.output / "other", cache=config.output / "features")
    assert [extract(options, "knn", "linear")[1] for options in (config, elsewhere)] == [0, 0]


def test_a_changed_input_never_meets_old_features(configure: Configure) -> None:
    config = configure()
    (before,), _ = extract(config, "knn")
    assert extract(configure(crop=24), "knn")[1] == extract(configure(resize=40), "knn")[1] == 27
    path = config.data / "train/blue/0.png"
    pixels = np.asarray(Image.open(path))
    Image.fromarray(np.ascontiguousarray(pixels[::-1])).save(path)
    (after,), images = extract(config, "knn")
    assert images == 27
    assert (before.rows(ALL) != after.rows(ALL)).any(1).tolist() == [True] + [False] * 26
    os.utime(path, ns=(1, 1))  # the same size and another time of change is another file too
    assert extract(config, "knn")[1] == 27


def test_an_interrupted_extraction_continues(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(module, "ROWS_PER_FILE", 4)
    config = configure(extraction_batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        extract(config, "knn", fails_after=10)  # two files and half of the third are done
    (store,), images = extract(config, "knn")
    assert images == 27 - 8
    (uninterrupted,), _ = extract(replace(config, output=config.output / "other"), "knn")
    assert torch.equal(store.rows(ALL), uninterrupted.rows(ALL))
    indices = torch.tensor([26, 0, 5, 5, 8, 1])
    assert torch.equal(store.rows(indices), store.rows(ALL)[indices])


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(configure: Configure, workers: int) -> None:
    config = configure(workers=workers)
    path = config.data / "train/green/2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"^\S*train/green/2.png: cannot be decoded \(.*\); repair or replace it$"):
        extract(config, "knn")
