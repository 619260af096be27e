"""Views of real photos are those that Pillow makes with the same draws; real data sets are read whole."""

import io
from pathlib import Path

import numpy as np
import pytest
from PIL import Image

from pretrain.config import DataConfig, ViewsConfig
from pretrain.data.sources import images_of_folder, open_source
from pretrain.data.views import decode, decode_whole, draw_views, image_size, make_views, view_kinds
from tests.references.dino_views import pillow_view

KINDS = view_kinds(ViewsConfig())
PHOTOS = 24
MEAN_LEVELS = 1.0


@pytest.mark.data
def test_views_of_photos_are_pillows(real_data_dir: Path) -> None:
    """In levels of 255: 0.3 on average over all views, under 1 for all but a few that are solarised or of strong colours."""
    source = images_of_folder(real_data_dir / "photos")
    means = []
    for index in np.linspace(0, len(source.names), PHOTOS, endpoint=False).astype(int).tolist():
        content = source.load(index)
        image = Image.open(source.describe(index)).convert("RGB")
        assert np.array_equal(decode_whole(content), np.asarray(image))
        draws = draw_views(KINDS, image.width, image.height, np.random.default_rng(index))
        views, drawn = make_views(content, KINDS, np.random.default_rng(index))
        assert np.array_equal(drawn.boxes_V5, draws.boxes_V5)
        for view, kind in enumerate(KINDS):
            expected = pillow_view(image, kind, draws, view).astype(int)
            means.append(np.abs(views[view].transpose(1, 2, 0) - expected).mean())
    assert np.mean(means) < 0.5
    assert np.quantile(means, 0.95) < MEAN_LEVELS
    assert max(means) < 3


@pytest.mark.data
def test_large_photos_may_be_decoded_smaller(real_data_dir: Path) -> None:
    """COCO's photos with crops of 32 pixels take the place of large ones with crops of 224: a level on average, at most."""
    source = images_of_folder(real_data_dir / "coco/val2017")
    kinds = view_kinds(ViewsConfig(global_size=48, local_size=20))
    scales, means = set(), []
    for index in range(0, len(source.names), 3):
        content = source.load(index)
        draws = draw_views(kinds, *image_size(content), np.random.default_rng(index))
        most = min(min(box[2:4]) / kind.size for box, kind in zip(draws.boxes_V5.tolist(), kinds, strict=True))
        scales.add(decode(content, most)[1])
        stream = io.BytesIO()
        Image.fromarray(decode_whole(content)).save(stream, "PPM")
        scaled, whole = (
            make_views(given, kinds, np.random.default_rng(index), colours=False) for given in (content, stream.getvalue())
        )
        assert np.array_equal(scaled[1].boxes_V5, whole[1].boxes_V5)
        pairs = zip(scaled[0], whole[0], strict=True)
        means += [np.abs(ours.astype(int) - theirs).mean() for ours, theirs in pairs]
    assert {1, 2} <= scales
    assert np.mean(means) < MEAN_LEVELS


@pytest.mark.data
def test_real_sets_are_read_whole(real_data_dir: Path) -> None:
    coco = open_source(DataConfig(path=real_data_dir / "coco/annotations/instances_train2017.json"))
    folder = images_of_folder(real_data_dir / "coco/train2017")
    assert list(coco.names) == list(folder.names)
    cifar = open_source(DataConfig(path=real_data_dir / "cifar-10-batches-bin"))
    assert len(cifar.names) == 1000
    pixels = decode_whole(cifar.load(0))
    assert pixels.shape == (32, 32, 3)
    # Neighbouring pixels of a photo are alike; planes read in a wrong order are not.
    assert np.abs(np.diff(pixels.astype(int), axis=1)).mean() < 25
