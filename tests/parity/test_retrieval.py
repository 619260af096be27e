"""Dense retrieval: memories, neighbours, votes and metrics that open-hummingbird-eval 5e79da2 made from recorded features."""

import dataclasses
from pathlib import Path
from typing import Any
from unittest.mock import Mock

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torchvision.transforms import functional as F

from common.images import IMAGENET_MEAN
from eval.probes import matching
from eval.probes.cache import FeatureStore
from eval.probes.data import Split
from eval.probes.patches import Patches, patch_pixels
from eval.probes.pixels import compute_metrics
from eval.probes.search import Engine
from eval.probes.sets import ADE20K, VOC2012
from eval.retrieval_segmentation import protocol, rules, views
from eval.retrieval_segmentation.retrieval import Retrieval
from eval.retrieval_segmentation.views import SquareView

PUBLISHED = protocol.PUBLISHED["hummingbird"]
ENGINES: list[Engine] = ["torch", "faiss"]


@pytest.fixture(scope="module")
def recording(golden_dir: Path) -> dict[str, Any]:
    return torch.load(golden_dir / "frozen/dense_retrieval_hummingbird.pt", weights_only=True)


@pytest.fixture(params=["voc_like", "ade_like", "voc_like_unbounded"])
def run(request: pytest.FixtureRequest, recording: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = recording["runs"][request.param]
    assert found["grid"] * found["patch"] == found["input_size"]
    return found


def labels_like(num_classes: int, ignored: int) -> protocol.Labels:
    """The protocol's labels of a data set with so many classes: like ADE20K's where 0 does not count, like VOC's otherwise."""
    of, count = (ADE20K, num_classes - 1) if ignored == ADE20K.void else (VOC2012, num_classes)
    assert of.void == ignored
    labels = protocol.labels_of(dataclasses.replace(of, classes=tuple(map(str, range(count)))), PUBLISHED)
    assert len(labels.names) == num_classes
    return labels


def view_of(run: dict[str, Any], kept: int, table: tuple[int, ...], epochs: int = 1) -> SquareView:
    """What stores recorded labels, which have the input's size, without random changes."""
    return SquareView(
        size=run["input_size"],
        std=PUBLISHED.std,
        bicubic=PUBLISHED.bicubic,
        table=table,
        num_classes=run["num_classes"],
        kept=kept,
        epochs=epochs,
    )


def pixels_of(run: dict[str, Any], view: SquareView, labels_HW: torch.Tensor) -> torch.Tensor:
    """The labels of the pixels of every patch."""
    _, labels_HW = view(Image.new("RGB", (view.size, view.size)), labels_HW.numpy(), 0)
    return patch_pixels(labels_HW[None], run["grid"])[0]


def chosen_patches(
    run: dict[str, Any], view: SquareView, pixels_NP: torch.Tensor, draws_N: torch.Tensor | None
) -> torch.Tensor:
    """The stored patches of a view, with the recorded draws in the place of ours."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(torch, "rand", lambda *_, **__: draws_N)
        return view.choose(pixels_NP, 0)


def stored(
    folder: Path, run: dict[str, Any], view: SquareView, features: list[torch.Tensor], pixels: list[torch.Tensor]
) -> Patches:
    """Patches on disk, each view's in a file of its own."""
    channels, images, rows = features[0].shape[1], len(features) // view.epochs, len(features) * view.kept
    stores = (
        FeatureStore(folder / "features", {}, rows, (channels,), np.float32, view.kept),
        FeatureStore(folder / "pixels", {}, rows, (pixels[0].shape[1],), np.uint8, view.kept),
    )
    for number, found in enumerate(zip(features, pixels, strict=True)):
        for store, values in zip(stores, found, strict=True):
            store.write(number, values.numpy())
    pairs = {str(image): (Path(), Path()) for image in range(images)}
    split = Split(root=folder, of=VOC2012, name="val", pairs=pairs, restricted=False)
    return Patches(split=split, view=view, side=run["grid"], channels=channels, features=stores[0], pixels=stores[1])


def open_retrieval(run: dict[str, Any], folder: Path, engine: Engine = "torch") -> Retrieval:
    """The task's memory and queries, with the recorded features, labels and draws."""
    labels = labels_like(run["num_classes"], run["eval_ignore_index"])
    epochs, images, patches = run["train_features"].shape[:3]
    kept = run["patches_per_image"] if run["memory_size"] > 0 else patches
    view = view_of(run, kept, labels.remembered, epochs)
    features, pixels = [], []
    for epoch in range(epochs):
        for image in range(images):
            pixels_NP = pixels_of(run, view, run["train_labels"][epoch, image])
            draws_N = run["uniform_draws"][epoch, image] if run["memory_size"] > 0 else None
            chosen = chosen_patches(run, view, pixels_NP, draws_N)
            if draws_N is not None:
                scores_N = rules.patch_scores(rules.class_counts(pixels_NP, run["num_classes"]))
                assert torch.equal(scores_N, run["patch_scores"][epoch, image])
                assert torch.equal(chosen, run["sampled_indices"][epoch, image])
            features.append(run["train_features"][epoch, image][chosen])
            pixels.append(pixels_NP[chosen])
    train = stored(folder / "train", run, view, features, pixels)
    view = view_of(run, patches, labels.true)
    asked = [pixels_of(run, view, labels_HW) for labels_HW in run["val_labels"]]
    test = stored(folder / "test", run, view, list(run["val_features"]), asked)
    settings = dataclasses.replace(
        PUBLISHED, input_size=run["input_size"], memory_size=max(0, run["memory_size"]), neighbours=(run["n_neighbours"],)
    )
    return Retrieval(settings, labels, train, test, torch.device("cpu"), engine, seed=0)


def test_labels_of_patches(run: dict[str, Any]) -> None:
    view = view_of(run, 1, labels_like(run["num_classes"], run["eval_ignore_index"]).remembered)
    pixels = torch.cat([pixels_of(run, view, labels_HW) for labels_HW in run["train_labels"].flatten(0, 1)])
    counts = rules.class_counts(pixels, run["num_classes"])
    expected = run["patch_label_frequencies"].reshape(counts.shape)
    torch.testing.assert_close(counts / run["patch"] ** 2, expected, rtol=0, atol=1e-6)


def test_the_memory(run: dict[str, Any], tmp_path: Path) -> None:
    retrieval = open_retrieval(run, tmp_path)
    memory = retrieval.remember(range(retrieval.train.num_views), PUBLISHED.distances[0])
    features = memory.vectors(retrieval.train.features.rows(memory.rows), False)
    torch.testing.assert_close(features, run["memory_features"], rtol=0, atol=1e-6)
    shares = rules.class_counts(retrieval.train.pixels.rows(memory.rows), run["num_classes"]) / run["patch"] ** 2
    torch.testing.assert_close(shares, run["memory_labels"], rtol=0, atol=1e-6)
    images = len(run["train_labels"].flatten(0, 1))
    if run["memory_size"] > 0:
        assert run["patches_per_image"] == max(1, run["memory_size"] // images) == len(features) // images


@pytest.mark.parametrize("engine", ENGINES)
def test_neighbours_votes_and_metric(run: dict[str, Any], recording: dict[str, Any], engine: Engine, tmp_path: Path) -> None:
    retrieval = open_retrieval(run, tmp_path, engine)
    train, test, temperature = retrieval.train, retrieval.test, recording["beta"]
    memory = retrieval.remember(range(train.num_views), PUBLISHED.distances[0])
    features, pixels = memory.vectors(train.features.rows(memory.rows), False), train.pixels.rows(memory.rows)
    ours, theirs = (np.zeros((run["num_classes"],) * 2, np.int64) for _ in range(2))
    k, size = run["n_neighbours"], run["input_size"]
    segmented = retrieval.segment(test, range(test.num_views), memory, [k])
    for image, (found, (prediction,)) in enumerate(segmented):
        queries = run["val_features"][image]
        length = queries.norm(dim=1, keepdim=True)
        products, indices = run["neighbour_inner_products"][image], run["neighbour_indices"][image]
        assert ((found.scores_Tk * length - products).abs() <= 1e-5 * length).all()
        swapped = found.indices_Tk != indices  # only where neighbours are closer than 1e-5
        recorded_scores = (memory.vectors(queries, True)[:, None] * features[indices.long()]).sum(-1)
        assert ((found.scores_Tk - recorded_scores).abs()[swapped] < 1e-5).all()
        votes = rules.soft_votes(found.scores_Tk, found.indices_Tk, pixels, run["num_classes"], temperature)
        torch.testing.assert_close(votes, run["label_prediction"][image], rtol=0, atol=1e-5)
        differ = prediction != run["argmax_map"][image]
        maps = votes.T.reshape(1, -1, run["grid"], run["grid"])
        best = torch.nn.functional.interpolate(maps, (size, size), mode="bilinear")[0].topk(2, dim=0).values
        assert ((best[0] - best[1])[differ] < 1e-5).all()
        _, truth = test.view(Image.new("RGB", (size, size)), run["val_labels"][image].numpy(), image)
        ours += matching.confusion(truth, prediction, run["num_classes"])
        # Of exact ties, the recording has what counts in the metric.
        settled = torch.where(differ, run["argmax_map"][image].long(), prediction)
        theirs += matching.confusion(truth, settled, run["num_classes"])
    paths = retrieval.confusions(tmp_path, "test", test, range(test.num_views), memory, [k])
    assert (sum(matching.read_counts(path)[:, 0].sum(axis=0) for path in paths) == ours).all()
    assert (theirs == run["confusion_gt_rows_pred_cols"].numpy()).all()
    iou = matching.iou_of_pairs(theirs)
    np.testing.assert_allclose(iou, run["iou_matrix"].numpy(), rtol=0, atol=1e-12)
    check_metric(theirs, run)
    every, matched = np.arange(len(iou)), run["hungarian_pred_to_gt"].numpy()
    assert iou[matching.best_matching(theirs), every].sum() == pytest.approx(iou[matched, every].sum(), abs=1e-12)


def check_metric(confusion: matching.Counts, expected: dict[str, Any]) -> None:
    def miou(chosen: np.ndarray) -> tuple[float, matching.Counts]:
        pixels = matching.class_pixels(confusion, chosen)
        return compute_metrics(torch.from_numpy(pixels), PUBLISHED.absent_classes)[0]["mIoU"] / 100, pixels

    matched, _ = miou(matching.best_matching(confusion))
    assert matched == pytest.approx(expected["miou"], abs=1e-9)
    key = "hungarian_pred_to_gt" if "hungarian_pred_to_gt" in expected else "pred_to_gt"
    value, (intersection, predicted, labelled) = miou(expected[key].numpy())
    assert value == pytest.approx(expected["miou"], abs=1e-9)
    assert intersection.tolist() == expected["tp"]
    assert (predicted - intersection).tolist() == expected["fp"]
    assert (labelled - intersection).tolist() == expected["fn"]
    assert miou(np.arange(len(confusion)))[0] == pytest.approx(expected["miou_without_matching"], abs=1e-9)


def test_the_metric_alone(recording: dict[str, Any]) -> None:
    for case in recording["metric_alone"]:
        assert case["num_pred"] == case["num_gt"]
        true = np.array(labels_like(case["num_gt"], case["ignore_index"]).true)[case["gt"].numpy()]
        confusion = matching.confusion(torch.from_numpy(true), case["pred"], case["num_gt"])
        assert (confusion == case["confusion"].numpy()).all()
        check_metric(confusion, case)


def test_pairs_of_more_predicted_than_true_classes(recording: dict[str, Any]) -> None:
    """Over-clustering, which no task measures yet: the IoU of the pairs that its matchings start from."""
    case = recording["overcluster_metric"]
    confusion = matching.confusion(case["gt"], case["pred"], case["num_pred"])[: case["num_gt"]]
    iou = matching.iou_of_pairs(confusion)
    precision = confusion / np.maximum(confusion.sum(0), 1)
    for name, groups in (("iou", iou.argmax(0)), ("precision", precision.argmax(0))):
        assert groups.tolist() == case[f"many_to_one_{name}_map"].tolist()
        assert miou_of_groups(confusion, groups) == pytest.approx(case[f"miou_many_to_one_{name}"], abs=1e-9)
    assert case["fraction_of_clusters_on_class_0_precision"] == pytest.approx((precision.argmax(0) == 0).mean())
    true, predicted = linear_sum_assignment(-iou)
    rest_to_0 = np.zeros(case["num_pred"], np.int64)
    rest_to_0[predicted] = true
    assert miou_of_groups(confusion, rest_to_0) == pytest.approx(case["miou_hungarian_rest_to_0"], abs=1e-9)


def miou_of_groups(confusion: matching.Counts, groups: np.ndarray) -> float:
    grouped = np.stack([confusion[:, groups == number].sum(1) for number in range(len(confusion))], axis=1)
    return float(np.diagonal(matching.iou_of_pairs(grouped)).mean())


def test_many_predicted_classes_for_one_true_class(run: dict[str, Any]) -> None:
    confusion = run["confusion_gt_rows_pred_cols"].numpy()
    precision = confusion / np.maximum(confusion.sum(0), 1)
    assert miou_of_groups(confusion, matching.iou_of_pairs(confusion).argmax(0)) == pytest.approx(run["miou_many_to_one_iou"])
    assert miou_of_groups(confusion, precision.argmax(0)) == pytest.approx(run["miou_many_to_one_precision"])


def test_labels_survive_the_originals_detour_over_fractions(recording: dict[str, Any]) -> None:
    """So we need not take it."""
    assert recording["label_round_trip_exact"]
    assert recording["label_round_trip"].tolist() == list(range(256))


def test_views_of_images(recording: dict[str, Any], monkeypatch: pytest.MonkeyPatch) -> None:
    transforms = recording["transforms"]
    assert PUBLISHED.temperature == recording["beta"]
    assert list(PUBLISHED.std) == transforms["std"]
    assert list(IMAGENET_MEAN) == transforms["mean"]
    for case in transforms["cases"]:
        image = Image.fromarray(case["image"].numpy())
        calls = Mock()
        with monkeypatch.context() as patch:
            for name in ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue", "resized_crop"):
                calls.attach_mock(Mock(wraps=getattr(F, name)), name)
                patch.setattr(F, name, getattr(calls, name))
            torch.manual_seed(case["torch_seed"])
            view, labels = views.augment(image, case["label"], case["size"], transforms["std"])
        *jitters, crop, _ = calls.mock_calls
        assert [[name, given[1]] for name, given, _ in jitters] == case["jitter_ops"]
        assert list(crop.args[1:5]) == case["crop_box_top_left_h_w"]
        torch.testing.assert_close(view, case["train_image"], rtol=0, atol=1e-5)
        assert torch.equal(labels, case["train_label"])
        view, labels = views.stretch(image, case["label"].numpy(), case["size"], transforms["std"], bicubic=False)
        torch.testing.assert_close(view, case["val_image"], rtol=0, atol=1e-5)
        assert torch.equal(labels, case["val_label"])
