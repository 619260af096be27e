"""Dense retrieval: memories, neighbours, votes and metrics that open-hummingbird-eval 5e79da2 made from recorded features."""

from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from scipy.optimize import linear_sum_assignment
from torchvision.transforms import RandomResizedCrop
from torchvision.transforms import functional as F

from common.images import IMAGENET_MEAN
from eval.probes import matching
from eval.probes.patches import patch_pixels
from eval.probes.search import Engine, nearest, unit
from eval.retrieval_segmentation import protocol, rules, views

CPU = torch.device("cpu")
VOID = 255
ENGINES: list[Engine] = ["torch", "faiss"]


@pytest.fixture(scope="module")
def recording(golden_dir: Path) -> dict[str, Any]:
    found: dict[str, Any] = torch.load(golden_dir / "frozen/dense_retrieval_hummingbird.pt", weights_only=True)
    return found


@pytest.fixture(params=["voc_like", "ade_like", "voc_like_unbounded"])
def run(request: pytest.FixtureRequest, recording: dict[str, Any]) -> dict[str, Any]:
    found: dict[str, Any] = {**recording["runs"][request.param], "beta": recording["beta"]}
    assert found["grid"] * found["patch"] == found["input_size"]
    return found


def remembered(run: dict[str, Any]) -> tuple[torch.Tensor, torch.Tensor]:
    """Features and pixels of the patches in the memory, by our rules."""
    features, pixels = [], []
    for epoch, labels_BHW in enumerate(run["train_labels"]):
        labels_BHW = labels_BHW.masked_fill(labels_BHW == VOID, 0)
        for image, pixels_NP in enumerate(patch_pixels(labels_BHW, run["grid"])):
            chosen = torch.arange(len(pixels_NP))
            if run["memory_size"] > 0:
                counts_NC = rules.class_counts(pixels_NP, run["num_classes"])
                assert torch.equal(rules.patch_scores(counts_NC), run["patch_scores"][epoch, image])
                chosen = rules.sample_patches(counts_NC, run["uniform_draws"][epoch, image], run["patches_per_image"])
                assert torch.equal(chosen, run["sampled_indices"][epoch, image])
            features.append(run["train_features"][epoch, image][chosen])
            pixels.append(pixels_NP[chosen])
    return torch.cat(features), torch.cat(pixels)


def test_labels_of_patches(run: dict[str, Any]) -> None:
    labels_BHW = run["train_labels"].flatten(0, 1)
    pixels_BNP = patch_pixels(labels_BHW.masked_fill(labels_BHW == VOID, 0), run["grid"])
    counts = rules.class_counts(pixels_BNP.flatten(0, 1), run["num_classes"])
    expected = run["patch_label_frequencies"].reshape(counts.shape)
    torch.testing.assert_close(counts / run["patch"] ** 2, expected, rtol=0, atol=1e-6)


def test_the_memory(run: dict[str, Any]) -> None:
    features, pixels = remembered(run)
    torch.testing.assert_close(unit(features), run["memory_features"], rtol=0, atol=1e-6)
    shares = rules.class_counts(pixels, run["num_classes"]) / run["patch"] ** 2
    torch.testing.assert_close(shares, run["memory_labels"], rtol=0, atol=1e-6)
    images = len(run["train_labels"].flatten(0, 1))
    if run["memory_size"] > 0:
        assert run["patches_per_image"] == max(1, run["memory_size"] // images) == len(features) // images


@pytest.mark.parametrize("engine", ENGINES)
def test_neighbours_votes_and_metric(run: dict[str, Any], engine: Engine) -> None:
    features, pixels = remembered(run)
    total = np.zeros((run["num_classes"],) * 2, np.int64)
    k, size = run["n_neighbours"], run["input_size"]
    for image, queries in enumerate(run["val_features"]):
        found = nearest(unit(queries), [unit(features)], k, CPU, engine)
        length = queries.norm(dim=1, keepdim=True)
        products, indices = run["neighbour_inner_products"][image], run["neighbour_indices"][image]
        assert ((found.scores_Tk * length - products).abs() <= 1e-5 * length).all()
        swapped = found.indices_Tk != indices  # only where neighbours are closer than 1e-5
        theirs = (unit(queries)[:, None] * unit(features)[indices.long()]).sum(-1)
        assert ((found.scores_Tk - theirs).abs()[swapped] < 1e-5).all()
        votes = rules.soft_votes(found.scores_Tk, found.indices_Tk, pixels, run["num_classes"], run["beta"])
        torch.testing.assert_close(votes, run["label_prediction"][image], rtol=0, atol=1e-5)
        prediction = rules.predict_softly(votes, size)
        differ = prediction != run["argmax_map"][image]
        maps = votes.T.reshape(1, -1, run["grid"], run["grid"])
        best = torch.nn.functional.interpolate(maps, (size, size), mode="bilinear")[0].topk(2, dim=0).values
        assert ((best[0] - best[1])[differ] < 1e-5).all()
        # Of exact ties, the recording has what counts in the metric.
        recorded = torch.where(differ, run["argmax_map"][image].long(), prediction)
        truth = run["val_labels"][image]
        truth = truth.masked_fill(truth == run["eval_ignore_index"], VOID)
        total += matching.confusion(truth, recorded, run["num_classes"])
    assert (total == run["confusion_gt_rows_pred_cols"].numpy()).all()
    np.testing.assert_allclose(matching.iou_of_pairs(total), run["iou_matrix"].numpy(), rtol=0, atol=1e-12)
    check_metric(total, run)
    theirs_matching = run["hungarian_pred_to_gt"].numpy()
    ours = matching.iou_of_pairs(total)[matching.best_matching(total), np.arange(len(total))].sum()
    assert ours == pytest.approx(matching.iou_of_pairs(total)[theirs_matching, np.arange(len(total))].sum(), abs=1e-12)


def check_metric(confusion: matching.Counts, expected: dict[str, Any]) -> None:
    def miou(chosen: np.ndarray) -> tuple[float, matching.Counts]:
        intersection, predicted, labelled = pixels = matching.class_pixels(confusion, chosen)
        return float((intersection / np.maximum(predicted + labelled - intersection, 1)).mean()), pixels

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
        confusion = matching.confusion(
            case["gt"].masked_fill(case["gt"] == case["ignore_index"], VOID), case["pred"], case["num_gt"]
        )
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
    assert list(protocol.HUMMINGBIRD_STD) == transforms["std"]
    assert list(IMAGENET_MEAN) == transforms["mean"]
    for case in transforms["cases"]:
        image = Image.fromarray(case["image"].numpy())
        boxes: list[Any] = []
        changes: list[Any] = []
        with monkeypatch.context() as patch:
            patch.setattr(RandomResizedCrop, "get_params", recorded(RandomResizedCrop.get_params, partial(note_box, boxes)))
            for name in ("adjust_brightness", "adjust_contrast", "adjust_saturation", "adjust_hue"):
                note = partial(note_change, changes, name)
                patch.setattr(F, name, recorded(getattr(F, name), note))
            torch.manual_seed(case["torch_seed"])
            view, labels = views.augment(image, case["label"], case["size"], transforms["std"])
        assert list(boxes[0]) == case["crop_box_top_left_h_w"]
        assert changes == case["jitter_ops"]
        torch.testing.assert_close(view, case["train_image"], rtol=0, atol=1e-5)
        assert torch.equal(labels, case["train_label"])
        view, labels = views.stretch(image, case["label"].numpy(), case["size"], transforms["std"], bicubic=False)
        torch.testing.assert_close(view, case["val_image"], rtol=0, atol=1e-5)
        assert torch.equal(labels, case["val_label"])


def note_box(boxes: list[Any], *_: Any, result: Any) -> None:
    boxes.append(result)


def note_change(changes: list[Any], name: str, _: Image.Image, factor: float, result: Image.Image) -> None:
    changes.append([name, factor])


def recorded(work: Callable[..., Any], note: Callable[..., None]) -> Callable[..., Any]:
    def call(*given: Any) -> Any:
        result = work(*given)
        note(*given, result=result)
        return result

    return call
