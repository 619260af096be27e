"""Image retrieval, copy detection and object discovery against recordings of DINO's, revisitop's, LOST's and TokenCut's code."""

import dataclasses
import json
import math
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from PIL import Image
from torch import Tensor

from backbones.base import Tokens
from eval.copy_detection import data as copydays
from eval.copy_detection import descriptors
from eval.copy_detection.protocol import PUBLISHED as COPY
from eval.copy_detection.task import read_input as read_square
from eval.object_discovery import data as boxes
from eval.object_discovery import methods
from eval.object_discovery.protocol import PUBLISHED as DISCOVERY
from eval.object_discovery.scores import is_hit, overlaps
from eval.object_discovery.task import KeyExtractor, padded
from eval.probes.images import normalised
from eval.probes.ranking import trapezoid_precision
from eval.retrieval.ranking import query_metrics, rank_images
from eval.retrieval.task import describe, read_input, scaled_inputs
from tests.parity.conftest import close

Recording = dict[str, Any]


def recording(folder: Path, name: str) -> Recording:
    return torch.load(folder / "tracking" / name, weights_only=True)


@pytest.fixture(scope="module")
def retrieval(golden_dir: Path) -> Recording:
    return recording(golden_dir, "retrieval_revisited.pt")


@pytest.fixture(scope="module")
def copies(golden_dir: Path) -> Recording:
    return recording(golden_dir, "copy_detection.pt")


@pytest.fixture(scope="module")
def discovery(golden_dir: Path) -> Recording:
    return recording(golden_dir, "object_discovery.pt")


def runs_with(recorded: Recording, key: str) -> list[Recording]:
    """The recorded runs that have such an entry."""
    found = [run for run in recorded.values() if isinstance(run, dict) and key in run]
    assert found, key
    return found


def test_ranks_and_metrics_of_landmarks(retrieval: Recording) -> None:
    for run in runs_with(retrieval, "ranks"):
        check_ranks(run, retrieval["ks"])


def check_ranks(run: Recording, ks: list[int]) -> None:
    if "database_features_raw" in run:
        raw = run["database_features_raw"]
        close(F.normalize(raw if raw.ndim == 2 else raw.mean(1), dim=1), run["database_features"], 1e-6)
    ranks = rank_images(run["database_features"], run["query_features"])
    wanted = run["ranks"].T.numpy()  # images in the order of their ranks
    assert np.array_equal(np.argsort(ranks, axis=1), wanted)
    sorts = [
        {sort: np.array(run[sort][query], np.int64) for sort in ("easy", "hard", "junk")} for query in range(len(run["easy"]))
    ]
    values = query_metrics(ranks, sorts, ks)
    for level, recorded in run["results"].items():
        close(values[f"mAP {level.title()}"] / 100, recorded["ap"], 1e-9)
        close(np.nanmean(values[f"mAP {level.title()}"]) / 100, recorded["map"], 1e-9)
        for place, k in enumerate(ks):
            of_queries = values[f"mP@{k} {level.title()}"] / 100
            close(of_queries, recorded["p"][:, place], 1e-9)
            close(np.nanmean(of_queries), recorded["mp"][place], 1e-9)


def test_inputs_and_features_of_landmarks(retrieval: Recording) -> None:
    examples = [(run, example) for run in runs_with(retrieval, "examples") for example in run["examples"]]
    for run, example in examples:
        image = Image.fromarray(example["image_uint8"].numpy())
        inputs = scaled_inputs(read_input(image, run["imsize"])[None], run["scales"])
        assert [tuple(found.shape[1:]) for found in inputs] == [tuple(wanted.shape) for wanted in example["inputs"]]
        again = scaled_inputs(example["inputs"][0][None], run["scales"])
        for found, wanted in zip(again, example["inputs"], strict=True):
            close(found[0], wanted, 1e-5)
        answers = iter(example["outputs"])
        network: Any = SimpleNamespace(
            spec=SimpleNamespace(),
            forward_tokens=lambda images, answers=answers: Tokens(next(answers)[None], images.flatten(2), (1, 1)),
        )
        with pytest.MonkeyPatch.context() as patched:
            patched.setattr("eval.retrieval.task.whole_patches", lambda images, _: images)
            feature = describe(network, run["scales"], example["inputs"][0][None])
        raw = run["database_features_raw"][example["index"]]
        close(feature, raw if raw.ndim == 1 else raw.mean(0), 1e-6)


def test_sizes_of_inputs(retrieval: Recording) -> None:
    by_count = {len(run["scales"]): run["scales"] for run in runs_with(retrieval, "scales")}
    for row in retrieval["scale_sizes"]:
        scales = by_count[len(row["sizes"])]
        found = scaled_inputs(torch.zeros(1, 1, row["h"], row["w"]), scales)
        assert [list(image.shape[-2:]) for image in found] == row["sizes"]
    for row in retrieval["thumbnail_sizes"]:
        found_size = read_input(Image.new("RGB", (row["in_w"], row["in_h"])), row["imsize"]).shape
        assert tuple(found_size) == (3, row["out_h"], row["out_w"])


def test_descriptors_of_copies(copies: Recording) -> None:
    run = copies["descriptor"]
    tokens = Tokens(run["tokens"][:, 0], run["tokens"][:, 1:], tuple(run["grid"]))
    close(descriptors.descriptor(tokens, COPY), run["descriptors"], 1e-5)
    example = copies["resize_example"]
    found = read_square(Image.fromarray(example["image_uint8"].numpy()), copies["imsize"])
    close(found, example["network_input"], 0.03)  # two levels of 8 bits: Pillow's versions may round differently


def test_search_and_precision_of_copies(copies: Recording) -> None:
    for run in runs_with(copies, "uses_whitening"):
        check_search(run, copies)


def check_search(run: Recording, copies: Recording) -> None:
    queries, database = copies["queries_raw"], copies["database_raw"]
    if not run["uses_distractors"]:
        database = database[: copies["n_originals"]]
    found = descriptors.whitening(copies["whitening_features"], COPY) if run["uses_whitening"] else None
    if found is not None:
        mean, projection = found
        close(mean, run["mean"], 1e-5)
        wanted = run["projection"].double()
        signs = (projection * wanted).sum(dim=1, keepdim=True).sign()
        torch.testing.assert_close(projection * signs, wanted, rtol=1e-3, atol=1e-3 * float(wanted.abs().max()))
    queries, database = (descriptors.whitened(features, found) for features in (queries, database))
    similarities, indices = descriptors.search(queries, database, dataclasses.replace(COPY, searched=copies["topk"]))
    if "similarities" in run:
        close(similarities[: len(run["similarities"])], run["similarities"], 1e-4)
    # Equally similar images may come in any order.
    every = queries @ database.T
    close(every.gather(1, run["indices"].long()), similarities, 1e-4 if run["uses_whitening"] else 1e-5)
    close(every.gather(1, indices), similarities, 1e-6)
    originals, names = copies["original_names"], copies["strong_names"]
    root = Path("copydays")
    blocks = {"original": tuple(root / name for name in originals), "strong": tuple(root / name for name in names)}
    strong = copydays.Copydays(root=root, blocks=blocks).positives()["strong"]
    assert strong == copies["strong_positives"]
    start = 0
    for block, size in zip(copies["block_names"], copies["block_sizes"], strict=True):
        positives = strong if block == "strong" else [[place] for place in range(size)]
        values = descriptors.precisions(run["indices"][start : start + size].numpy(), positives)
        close(values, run["ap"][start : start + size], 1e-9)
        close(values.mean(), run["map"][block], 1e-9)
        start += size


def test_precision_of_ranks(copies: Recording) -> None:
    for example in copies["ap_examples"]:
        assert math.isclose(
            trapezoid_precision(np.array(example["ranks"], np.int64), example["n"]), example["ap"], abs_tol=1e-9
        )


def is_settled(keys_ND: Tensor, degrees_N: Tensor, candidates: int) -> bool:
    """Whether the box does not depend on the order of equal degrees, which LOST's unstable sort leaves open."""
    similar_NN = keys_ND @ keys_ND.T > 0
    if similar_NN.all():
        return True
    last = degrees_N.sort().values[:candidates][-1]
    seeds_N, tied_N = degrees_N == degrees_N.min(), degrees_N == last
    some_tied_are_cut = int((degrees_N <= last).sum()) > candidates
    return int(seeds_N.sum()) == 1 and not (some_tied_are_cut and similar_NN[seeds_N][:, tied_N].any())


def test_boxes_of_lost(discovery: Recording) -> None:
    compared = 0
    for run in discovery["lost"]:
        rules = dataclasses.replace(DISCOVERY["lost"], candidates=run["k_patches"])
        keys, grid = run["keys"][0, 1:], tuple(run["grid"])
        seed, _ = methods.lost(keys, rules)
        if run["seed_unique"]:
            assert seed == run["seed"]
        box = methods.find_box(keys, grid, run["patch"], tuple(run["image_hw"]), rules)
        if is_settled(keys, -run["minus_degree"], run["k_patches"]):
            assert box.tolist() == run["box"], run["kind"]
            compared += 1
    assert compared


def test_keys_padding_and_boxes_of_the_whole_of_lost(discovery: Recording) -> None:
    run, hits = discovery["lost_main"], 0
    for image in run["images"]:
        picture = Image.fromarray(image["image_uint8"].numpy())
        close(padded(normalised(picture)[None], run["patch"])[0], image["padded_input"], 1e-5)
        extract = extractor_that_gives(image["qkv"], tuple(image["grid"]))
        keys, grid = extract(image["padded_input"][None])
        close(keys, image["keys"].reshape(keys.shape), 1e-6)
        box = methods.find_box(keys, grid, run["patch"], picture.size[::-1], DISCOVERY["lost"])
        rules = DISCOVERY["lost"]
        assert rules.candidates is not None
        if is_settled(keys, -image["minus_degree"], rules.candidates):
            assert box.tolist() == image["box"]
        hits += is_hit(np.array(image["box"]), image["gt"].numpy())
    assert f"({hits}/{len(run['images'])})" in run["printed"]


def extractor_that_gives(qkv: Tensor, grid: tuple[int, int]) -> KeyExtractor:
    """The extractor on a network whose last layer of queries, keys and values gives these."""
    layer = torch.nn.Linear(1, 1)
    layer.forward = lambda _: qkv[None]  # type: ignore[method-assign,assignment]

    class Network(torch.nn.Module):
        num_prefix_tokens = 1

        def __init__(self) -> None:
            super().__init__()
            self.blocks = [SimpleNamespace(attn=SimpleNamespace(qkv=layer))]

        def forward_tokens(self, images: Tensor) -> Tokens:
            layer(images)
            return Tokens(None, qkv[None, 1:], grid)

    return KeyExtractor(cast(Any, Network()), torch.device("cpu"))


def test_boxes_of_tokencut(discovery: Recording) -> None:
    compared = 0
    for run in discovery["tokencut"]:
        if not run["well_defined"]:
            continue
        rules = dataclasses.replace(DISCOVERY["tokencut"], least_similarity=run["tau"], weak_edge=run["eps"])
        keys, grid = run["keys"][0, 1:], tuple(run["grid"])
        vector, wanted = methods.cut_vector(keys, rules), run["eigenvector"].flatten().numpy()
        vector *= np.sign(vector @ wanted)
        close(vector / np.abs(wanted).max(), wanted / np.abs(wanted).max(), 1e-4)
        seed, chosen = methods.tokencut(keys, rules)
        assert seed == run["seed"]
        assert np.array_equal(chosen.reshape(grid), run["foreground"].bool().numpy())
        assert methods.find_box(keys, grid, run["patch"], tuple(run["image_hw"]), rules).tolist() == run["box"]
        compared += 1
    assert compared


def test_corloc(discovery: Recording, golden_dir: Path) -> None:
    run = discovery["corloc"]
    hits = []
    for box, truth, ious in zip(run["pred"].numpy(), run["gt"], run["ious"], strict=True):
        close(overlaps(box, truth.numpy()), ious, 1e-6)
        hits.append(is_hit(box, truth.numpy()))
    assert hits == run["hit"].bool().tolist()
    assert math.isclose(100 * np.mean(hits), run["corloc_percent"], abs_tol=1e-9)


def voc_xml(objects: list[dict[str, Any]]) -> str:
    ends = ("xmin", "ymin", "xmax", "ymax")
    parts = [
        f"<object><name>{found['name']}</name><truncated>{found['truncated']}</truncated><difficult>{found['difficult']}</difficult>"
        f"<bndbox>{''.join(f'<{end}>{found[end]}</{end}>' for end in ends)}</bndbox></object>"
        for found in objects
    ]
    return f"<annotation>{''.join(parts)}</annotation>"


def test_true_boxes_of_voc_and_coco(discovery: Recording, tmp_path: Path) -> None:
    for name in ("JPEGImages", "Annotations", "ImageSets/Main", "train2014", "annotations"):
        (tmp_path / name).mkdir(parents=True)
    names = [f"{number:06}" for number in range(len(discovery["voc"]))]
    farthest = max(int(run["boxes"].max()) for kind in ("voc", "coco") for run in discovery[kind] if len(run["boxes"]))
    picture = Image.new("L", (farthest, farthest))
    for name, run in zip(names, discovery["voc"], strict=True):
        (tmp_path / f"Annotations/{name}.xml").write_text(voc_xml(run["objects"]))
        picture.save(tmp_path / f"JPEGImages/{name}.jpg")
    (tmp_path / "ImageSets/Main/trainval.txt").write_text("\n".join(names))
    every, some = (boxes.check_data(tmp_path, no_hard).images for no_hard in (False, True))
    for number, (name, run) in enumerate(zip(names, discovery["voc"], strict=True)):
        assert every[f"{name}.jpg"].boxes.tolist() == run["boxes"].tolist()
        assert (f"{name}.jpg" not in some) == (number in discovery["voc_discarded_images_no_hard"])
        if f"{name}.jpg" in some:
            assert some[f"{name}.jpg"].boxes.tolist() == run["boxes_no_hard"].tolist()
    content: dict[str, Any] = {"images": [], "annotations": []}
    for number, run in enumerate(discovery["coco"]):
        size = {"width": farthest, "height": farthest}
        content["images"].append({"id": number, "file_name": f"COCO_train2014_{number:012}.jpg", **size})
        content["annotations"] += [{**found, "image_id": number} for found in run["objects"]]
        picture.save(tmp_path / f"train2014/COCO_train2014_{number:012}.jpg")
    (tmp_path / "annotations/instances_train2014.json").write_text(json.dumps(content))
    listed = [f"train2014/{image['file_name']}" for image in content["images"]]
    (tmp_path / "coco_20k_filenames.txt").write_text("\n".join(listed))
    found_coco = boxes.check_data(tmp_path).images
    for image, run in zip(content["images"], discovery["coco"], strict=True):
        assert found_coco[image["file_name"]].boxes.tolist() == run["boxes"].reshape(-1, 4).tolist()
