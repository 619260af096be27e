import os
from collections.abc import Callable

import numpy as np
import pytest
import torch
from PIL import Image

from backbones.file import load_backbone, read_backbone_file
from eval.classification import store as store_module
from eval.classification.config import ClassificationConfig
from eval.classification.datasets import read_splits
from eval.classification.features import Features, all_rows, extract_features
from eval.classification.representation import FeatureExtractor, choose_representation
from eval.classification.store import FeatureStore
from eval.classification.transforms import CentreCrop
from eval.processes import Process
from tests.eval.classification.conftest import SPEC, TEST_IMAGES

Configure = Callable[..., ClassificationConfig]
CPU = torch.device("cpu")


class Counting(FeatureExtractor):
    """Counts the images that go through the backbone."""

    images = 0
    fails_after = 10**9

    def __call__(self, images_B3HW: torch.Tensor) -> dict[str, torch.Tensor]:
        if self.images >= self.fails_after:
            raise KeyboardInterrupt
        self.images += len(images_B3HW)
        return super().__call__(images_B3HW)


def extract(config: ClassificationConfig, fails_after: int = 10**9) -> tuple[Features, Counting]:
    extractor = Counting(load_backbone(config.backbone), choose_representation(SPEC, None, None), CPU)
    extractor.fails_after = fails_after
    splits = read_splits(config.data, "train", "val", "")
    return extract_features(config, splits, read_backbone_file(config.backbone).sha256, extractor, Process()), extractor


def test_rows_are_the_images_features_in_order(configure: Configure) -> None:
    config = configure(augment=False)
    features, extractor = extract(config)
    splits = read_splits(config.data, "train", "val", "")
    transform = CentreCrop(resize=36, crop=32)
    inputs = torch.stack([transform(splits.test.source[index], index) for index in range(len(splits.test))])
    expected = extractor(inputs)
    assert set(features.train) == set(features.test) == {"knn", "linear"}
    for name, store in features.test.items():
        torch.testing.assert_close(all_rows(store), expected[name])


def test_each_image_goes_through_the_backbone_once(configure: Configure) -> None:
    assert extract(configure())[1].images == 42
    assert extract(configure())[1].images == 0
    # The probe's training features are wanted only where it does not augment.
    assert set(extract(configure())[0].train) == {"knn"}
    assert extract(configure(augment=False))[1].images == 27
    assert (
        extract(configure(epochs=9, neighbours=[3], output=configure().output / "other", cache=configure().features_folder))[
            1
        ].images
        == 0
    )


def test_a_changed_input_never_meets_old_features(configure: Configure) -> None:
    config = configure(classifiers=["knn"])
    before = all_rows(extract(config)[0].test["knn"])
    assert extract(configure(classifiers=["knn"], crop=24))[1].images == 42
    path = config.data / "val/blue/0.png"
    size, pixels = path.stat().st_size, np.asarray(Image.open(path))
    Image.fromarray(np.ascontiguousarray(pixels[::-1])).save(path)
    features, extractor = extract(config)
    assert extractor.images == 15
    changed = (all_rows(features.test["knn"]) != before).any(1)
    assert changed.tolist() == [True] + [False] * (3 * TEST_IMAGES - 1)
    # The same size and another time of change is another file too.
    content = path.read_bytes()
    path.write_bytes(content)
    os.utime(path, ns=(1, 1))
    assert extract(config)[1].images == 15
    assert size > 0


def test_an_interrupted_extraction_continues(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(store_module, "ROWS_PER_FILE", 4)
    config = configure(classifiers=["knn"], extraction_batch_size=3)
    with pytest.raises(KeyboardInterrupt):
        extract(config, fails_after=10)  # two pieces and half of the third are done
    features, extractor = extract(config)
    assert extractor.images == 42 - 8
    undisturbed, _ = extract(configure(classifiers=["knn"], extraction_batch_size=3, output=config.output / "other"))
    for name in ("train", "test"):
        stores: list[FeatureStore] = [getattr(run, name)["knn"] for run in (features, undisturbed)]
        assert torch.equal(all_rows(stores[0]), all_rows(stores[1]))


@pytest.mark.parametrize("workers", [0, 1])
def test_an_image_that_cannot_be_decoded_is_named(configure: Configure, workers: int) -> None:
    config = configure(workers=workers)
    path = config.data / "val/green/2.png"
    path.write_bytes(path.read_bytes()[:200])
    with pytest.raises(ValueError, match=r"^\S*val/green/2.png: cannot be decoded \(.*\); repair or replace it$"):
        extract(config)


def test_features_that_are_no_numbers(configure: Configure, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(Counting, "__call__", lambda self, images: {"knn": torch.full((len(images), 2), torch.nan)})
    with pytest.raises(ValueError, match="not finite; the backbone's weights are damaged"):
        extract(configure(classifiers=["knn"]))
