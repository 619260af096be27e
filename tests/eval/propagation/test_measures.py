from pathlib import Path

import cv2
import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from skimage.morphology import disk

from eval.propagation.masks import write_mask
from eval.propagation.measures import dilate, measure_object, measure_sequence
from tests.references import davis_scores as reference


def blobs(seed: int, height: int, width: int, count: int) -> np.ndarray:
    """Overlapping rectangles of ids 1 to count; some leave the image or vanish behind others."""
    rng = np.random.default_rng(seed)
    mask = np.zeros((height, width), np.uint8)
    for number in range(1, count + 1):
        top, left = rng.integers(-4, height), rng.integers(-4, width)
        bottom, right = top + rng.integers(0, height), left + rng.integers(0, width)
        mask[max(0, top) : max(0, bottom), max(0, left) : max(0, right)] = number
    return mask


def write_sequence(folder: Path, masks: list[np.ndarray]) -> Path:
    folder.mkdir(parents=True)
    for index, mask in enumerate(masks):
        write_mask(folder / f"{index:05d}.png", mask)
    return folder


@settings(max_examples=60, deadline=None)
@given(seed=st.integers(0, 10**6), height=st.integers(1, 150), width=st.integers(1, 260))
def test_a_cut_out_measures_what_the_whole_frame_does(seed: int, height: int, width: int) -> None:
    annotation, prediction = blobs(seed, height, width, 3), blobs(seed + 1, height, width, 3)
    for number in (1, 2, 3):
        wanted, found = annotation == number, prediction == number
        region, contour = measure_object(annotation, prediction, number)
        assert region == pytest.approx(reference.region_similarity(wanted, found), abs=1e-12)
        assert contour == pytest.approx(reference.boundary_measure(wanted, found), abs=1e-12)


def test_a_sequence_as_the_plain_reference_scores_it(tmp_path: Path) -> None:
    truth = [blobs(seed, 60, 90, 3) for seed in range(6)]
    truth[0][:9, :9] = [[1, 1, 1, 2, 2, 2, 3, 3, 3]] * 9
    # Undecided pixels; those of the first mask must not count as 255 objects.
    truth[0][-5:, -5:] = truth[2][5:30, 5:30] = 255
    annotations = write_sequence(tmp_path / "truth", truth)
    predictions = write_sequence(tmp_path / "found", [blobs(seed + 50, 60, 90, 2) for seed in range(6)])
    measures = measure_sequence(annotations, predictions)
    region, contour = reference.measure_sequence(annotations, predictions)
    np.testing.assert_allclose(measures.region, region, rtol=0, atol=1e-12)
    np.testing.assert_allclose(measures.boundary, contour, rtol=0, atol=1e-12)
    assert measures.region.shape == (3, 4)


def test_one_object_merges_ids_on_both_sides(tmp_path: Path) -> None:
    ids = np.zeros((20, 20), np.uint8)
    ids[:5], ids[5:10] = 1, 2
    annotations = write_sequence(tmp_path / "truth", [np.where(ids > 0, np.uint8(255), np.uint8(0))] * 3)
    measures = measure_sequence(annotations, write_sequence(tmp_path / "found", [ids] * 3), one_object=True)
    assert measures.region.tolist() == [[1.0]]


def test_objects_that_the_first_frame_lacks(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    first = np.repeat([1, 0], [5, 15])[:, None].repeat(20, axis=1).astype(np.uint8)
    late = first.copy()
    late[10:] = 3
    annotations = write_sequence(tmp_path / "truth", [first, first, late, first])
    measures = measure_sequence(annotations, write_sequence(tmp_path / "found", [first] * 4))
    assert measures.region.tolist() == [[1, 1]]
    assert ["object ids 3 appear after the first frame" in record.message for record in caplog.records] == [True]
    first[8] = 3
    write_mask(annotations / "00000.png", first)
    write_mask(annotations / "00002.png", np.where(late == 3, 2, late).astype(np.uint8))
    caplog.clear()
    # As the official evaluation does: object 2, which the first frame lacks, counts as found where nobody sees it.
    assert measure_sequence(annotations, tmp_path / "found").region[1].tolist() == [1, 0]
    assert ["no object 2; the official evaluation" in record.message for record in caplog.records] == [True]


def test_8k_frames(tmp_path: Path) -> None:
    """The tolerance of the contours is 71 pixels there; it once ended in an AssertionError."""
    mask = np.zeros((4320, 7680), np.uint8)
    mask[100:300, 100:400] = 1
    near, far = np.roll(mask, 70, axis=1), np.roll(mask, 80, axis=1)
    assert measure_object(mask, near, 1)[1] == 1
    assert 0.4 < measure_object(mask, far, 1)[1] < 1


def test_predictions_that_cannot_be_scored_are_named(tmp_path: Path) -> None:
    mask = np.ones((20, 20), np.uint8)
    annotations = write_sequence(tmp_path / "truth", [mask] * 4)
    predictions = write_sequence(tmp_path / "found", [mask] * 4)
    (predictions / "00000.png").unlink()
    (predictions / "00003.png").unlink()
    assert measure_sequence(annotations, predictions).region.tolist() == [[1, 1]]  # the first and the last are not needed
    write_mask(predictions / "00002.png", mask * 2)
    with pytest.raises(ValueError, match=r"found/00002\.png: object id 2, but the annotation has no id above 1"):
        measure_sequence(annotations, predictions)
    (predictions / "00002.png").unlink()
    with pytest.raises(ValueError, match=r"found/00002\.png: no such prediction"):
        measure_sequence(annotations, predictions)
    with pytest.raises(ValueError, match=r"empty: 0 annotated frames"):
        measure_sequence(tmp_path / "empty", predictions)


@settings(max_examples=100, deadline=None)
@given(
    seed=st.integers(0, 10**6),
    height=st.integers(1, 40),
    width=st.integers(1, 200),
    radius=st.integers(0, 30) | st.integers(60, 70) | st.integers(120, 140),
    density=st.sampled_from([0.001, 0.02, 0.5]),
)
def test_dilation_is_by_a_disk(seed: int, height: int, width: int, radius: int, density: float) -> None:
    image = (np.random.default_rng(seed).random((height, width)) < density).astype(np.uint8)
    assert (dilate(image, radius) == cv2.dilate(image, disk(radius).astype(np.uint8))).all()
