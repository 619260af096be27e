"""Damaged files of every kind that somebody else wrote: each ends in one line that names it, or in a right value.

`python -m tests.test_fuzz PARSER COUNT FOLDER` is one batch, in a process whose memory is limited, and which a hang ends.
"""

import functools
import importlib
import io
import itertools
import json
import random
import re
import resource
import shutil
import signal
import subprocess
import sys
import tarfile
import zipfile
import zlib
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from hypothesis import HealthCheck, Phase, given, settings
from hypothesis import strategies as st

from common.files import one_line
from tests.conftest import REPOSITORY
from tests.layouts import make_all
from tests.pretrain.conftest import tiny_run
from tests.processes import ENVIRONMENT
from tools.make_sample_data import SampleConfig, draw_samples

MEMORY = 1 << 30  # bytes beyond what the imports took
SECONDS_EACH, SECONDS_ALL = 20, 3000
BINARY = (".npz", ".png", ".jpg", ".tar", ".bin", ".pth", ".pkl")

TEXTS = r'''null true -1 0 0.5 1e999 -1e308 NaN -Infinity 1e18 4294967296 -0.0 [] {} [null] ~ : <f8 |O (3,3) &a[*a]
"" "x" "1" "\u0000\n\u001b[2J" "../../../x" "/etc/passwd" "=1+1" "\ud800"'''
LONG = ("9" * 5000, f'"{"long " * 20_000}"', "[" * 50_000 + "]" * 50_000, '{"a":' * 50_000 + "1" + "}" * 50_000)
HOSTILE = [*TEXTS.split(), *LONG, "\x00"]
PLAIN = st.none() | st.booleans() | st.integers() | st.floats() | st.text()
JSON = st.recursive(PLAIN, lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner), max_leaves=8).map(json.dumps)
WORD = re.compile(rb'"[^"]*"|[\w.+-]+|[\[\]{},:\n]')


def mutated(content: bytes, suffix: str, chance: random.Random, value: str = "0") -> bytes:
    """One to three changes: of words or bytes, in containers also of what is inside, so that their checksums stay right.

    A word becomes `value`, a hostile or another one of the file.
    """
    for _ in range(chance.randint(1, 3)):
        words = [] if suffix in BINARY else list(WORD.finditer(content))
        if suffix in CONTAINERS and chance.random() < 0.7:
            content = CONTAINERS[suffix](content, chance)
        elif words and chance.random() < 0.8:
            word, other = chance.choice(words), chance.choice(words)
            new = chance.choice([value.encode(), chance.choice(HOSTILE).encode(), other[0], b"", 2 * word[0]])
            content = content[: word.start()] + new + content[word.end() :]
        else:
            content = changed_bytes(content, chance)
    return content


def changed_bytes(content: bytes, chance: random.Random) -> bytes:
    start = chance.randrange(len(content) + 1)
    part = content[start : start + chance.choice([1, 1, 2, 4, 64, len(content)])]
    new = chance.choice([chance.randbytes(len(part)), b"", 2 * part, bytes(len(part)), b"\xff\xef\xbb\xbf\r\n"])
    return content[:start] + new + content[start + len(part) :]


def changed_zip(content: bytes, chance: random.Random) -> bytes:
    """Another header or other values of an array, or another pickle."""
    try:
        with zipfile.ZipFile(io.BytesIO(content)) as archive:
            members = {name: archive.read(name) for name in archive.namelist()}
        name = chance.choice(list(members))
    except Exception:  # an earlier change damaged it
        return content
    members[name] = mutated(members[name], chance.choice([".npy", ".bin"]), chance)
    stream = io.BytesIO()
    with zipfile.ZipFile(stream, "w") as archive:
        for name, member in members.items():
            archive.writestr(name, member)
    return stream.getvalue()


def changed_png(content: bytes, chance: random.Random) -> bytes:
    """Another content of a chunk, a chunk less, or one twice."""
    position, chunks = 8, []
    while position + 12 <= len(content):
        length = int.from_bytes(content[position : position + 4], "big")
        chunks.append((content[position + 4 : position + 8], content[position + 8 : position + 8 + length]))
        position += 12 + length
    number = chance.randrange(len(chunks)) if chunks else 0
    kind, data = chunks[number] if chunks else (b"IHDR", b"")
    try:
        new = zlib.compress(changed_bytes(zlib.decompress(data), chance))
    except zlib.error:
        new = changed_bytes(data, chance)
    chunks[number : number + 1] = chance.choice([*4 * [[(kind, new)]], [], 2 * [(kind, data)]])
    packed = (len(data).to_bytes(4, "big") + kind + data + zlib.crc32(kind + data).to_bytes(4, "big") for kind, data in chunks)
    return content[:8] + b"".join(packed)


def changed_tar(content: bytes, chance: random.Random) -> bytes:
    """Another field in the header of a member."""
    start = 512 * chance.randrange(1 + len(content) // 512)
    header = bytearray(content[start : start + 512].ljust(512, b"\0"))
    place, length = chance.choice([(0, 100), (100, 8), (124, 12), (136, 12), (156, 1), (157, 100), (257, 8), (345, 155)])
    texts = (b"7" * length, b"\x80" + bytes(length - 1), b"-1", b"../../x.jpg", b"/x.jpg", b"a\n.jpg", b"g", b"x")
    header[place : place + length] = chance.choice(texts)[:length].ljust(length, b"\0")
    header[148:156] = b" " * 8
    header[148:156] = b"%06o\0 " % sum(header)
    return content[:start] + bytes(header) + content[start + 512 :]


CONTAINERS = {".npz": changed_zip, ".pth": changed_zip, ".png": changed_png, ".tar": changed_tar}


def write_whole_files(root: Path) -> None:
    draw_samples(SampleConfig(output=root, train_images=1, val_images=1, frames=3, photos=1, class_images=1))
    shutil.copytree(REPOSITORY / "tests/tables/recorded/results", root / "results")
    shutil.copytree(REPOSITORY / "tables/reference", root / "reference", ignore=shutil.ignore_patterns("*.py"))
    for name in ("data_batch_1.bin", "test_batch.bin"):
        (root / "cifar").mkdir(exist_ok=True)
        (root / "cifar" / name).write_bytes(
            b"".join(bytes([label]) + random.Random(label).randbytes(3072) for label in range(3))
        )
    (root / "cifar/batches.meta.txt").write_text("\n".join("abcdefghij"))
    (root / "imagenet/classes.txt").write_text("cat\ncoffee with a remark\n")
    (root / "recipe.yaml").write_text(
        "extends: [coco, vit_tiny16]\nmethod: selfpatch\ndata: {path: ~/photos, workers: 2}\n"
        "selfpatch: {k: 2, window: 3}\nviews:\n  global_scale: [0.3, 1]\ntrain: {output: out, seed: 1, epochs: 20}\n"
    )
    (root / "training").mkdir()
    (root / "training/.parts.json").write_text('[12.5, 1.7e9, "a"]\n')
    (root / "vit").mkdir()
    facts = {"model_type": "vit", "num_attention_heads": 2, "layer_norm_eps": 1e-6, "hidden_act": "gelu"}
    (root / "vit/config.json").write_text(json.dumps(facts))
    files = {name: f"{1 + (place >= 9)}.safetensors" for place, name in enumerate(make_all()["huggingface_vit"].checkpoint)}
    (root / "vit/model.safetensors.index.json").write_text(json.dumps({"weight_map": files}))
    lines = ({"iteration": step, "loss": 1 / step, "lr": 0.1} for step in range(1, 6))
    (root / "training.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    (root / "list.txt").write_text("photos/cat/0000.jpg\nphotos/rocket/0000.jpg\n")
    with tarfile.open(root / "shard.tar", "w") as archive:
        archive.add(root / "photos")


def of(module: str, name: str) -> Any:
    """What a module of ours calls `name`, loaded only in the process that needs it."""
    return getattr(importlib.import_module(module), name)


def read_results(root: Path) -> None:
    of("tables.make", "render_tables")(of("tables.make", "build_tables")(root / "results"))


def read_items(root: Path) -> None:
    for measurement in of("tables.collect", "collect")(root / "results/selfpatch_b")[0].measurements:
        of("tables.significance", "read_items")(measurement)


def read_coco(root: Path) -> None:
    """What the check lets pass must be scorable."""
    from pycocotools.coco import COCO

    splits = of("eval.detection.data", "check_data")(root / "coco")
    of("eval.findings", "refuse")(of("eval.detection.data", "examine")(root / "coco", deep=True, jobs=1))
    truth = COCO(str(splits["val2017"].annotation_file))
    listed = sorted(truth.getImgIds())
    annotations = [entry for entry in truth.dataset["annotations"] if entry["image_id"] in listed]
    detections = [{**entry, "score": 1.0, "segmentation": truth.annToRLE(entry)} for entry in annotations]
    overall, _, _ = of("eval.detection.metric", "score")(truth, detections, listed, truth.getCatIds())
    assert all(np.isnan(value) or 0 <= value <= 100.0001 for value in overall.values()), overall


def read_davis(root: Path) -> None:
    """Masks that pass are scored; compared with themselves they are right."""
    split = of("eval.davis.data", "DavisSplit")(root=root / "DAVIS")
    found = of("eval.davis.data", "find_sequences")(split, all_masks=True)
    assert {sequence.first_mask().shape for sequence in found} == {sequence.size for sequence in found}
    masks = split.masks_folder
    scores = of("eval.propagation.measures", "score_sequences")([sequence.name for sequence in found], masks, masks)
    assert scores.overall["J&F-Mean"] == 1
    of("eval.davis.data", "examine")(root / "DAVIS", deep=True, jobs=1)


def read_vip(root: Path) -> None:
    """Masks that pass are scored; compared with themselves they are right."""
    for video in of("eval.vip.data", "find_videos")(root / "VIP_Fine"):
        for mask in video.masks:
            labels = of("eval.propagation.masks", "read_mask")(mask)
            counts = of("eval.vip.metric", "frame_confusion")(labels, np.where(labels < 20, labels, 0))
            assert counts.sum() == np.diag(counts).sum()


def read_jhmdb(root: Path) -> None:
    for video in of("eval.jhmdb.data", "find_videos")(root / "JHMDB"):
        of("eval.jhmdb.joints", "joint_distances")(video.places_2JT, video.places_2JT)


def read_ade(root: Path) -> None:
    """What the check lets pass must be readable by the task."""
    read = of("eval.segmentation.metric", "ReadLabels")()
    for split in of("eval.segmentation.data", "check_data")(root / "ade/ADEChallengeData2016").values():
        of("eval.findings", "refuse")(split.check_files(deep=True, jobs=1))
        for _, path in split.pairs.values():
            shape = of("eval.image_checks", "label_map")(path).shape
            labels_HW = read.transform({"seg_map_path": str(path), "ori_shape": shape})["gt_seg_map"]
            assert not ((labels_HW >= 150) & (labels_HW < 255)).any()


def read_label_set(place: str, root: Path) -> None:
    """What the check of a labelled set lets pass must be readable by the probes."""
    found = of("eval.probes.sets", "find_set")(root / place)
    for split in of("eval.probes.data", "check_splits")(found, root / place, found.sizes).values():
        of("eval.findings", "refuse")(split.check_files(deep=True, jobs=1))
        for image, labels in split.pairs.values():
            classes_HW = found.read_classes(labels, of("eval.probes.data", "read_image")(image).size)
            assert ((classes_HW < found.num_classes) | (classes_HW == 255)).all()


def read_nyu(root: Path) -> None:
    of("eval.findings", "refuse")(of("eval.depth.data", "examine")(root / "nyu", deep=True, jobs=1))
    for split in of("eval.depth.data", "check_data")(root / "nyu").values():
        for pair in split.pairs.values():
            image_3HW, depth_1HW = of("eval.depth.transforms", "read_tensors")(pair)
            assert image_3HW.shape[1:] == depth_1HW.shape[1:]
            assert depth_1HW.min() >= 0


def read_boxes(name: str, root: Path) -> None:
    """What the check lets pass must be scorable."""
    for image in of("eval.object_discovery.data", "check_data")(root / name).images.values():
        overlaps = of("eval.object_discovery.scores", "overlaps")(np.array([0, 0, 9, 9]), image.boxes)
        assert ((overlaps >= 0) & (overlaps <= 1)).all()


def read_classes(root: Path) -> None:
    folder = root / "imagenet"
    for classes in ("", str(folder / "classes.txt")):
        of("eval.findings", "refuse")(of("eval.classification.data", "examine")(folder, deep=True, jobs=1))
        for images in of("eval.classification.data", "read_splits")(folder, "train", "val", classes):
            of("eval.classification.data", "read_image")(images.source, 0)


def read_cifar(root: Path) -> None:
    for images in of("eval.classification.data", "read_splits")(root / "cifar", "train", "val", ""):
        assert images.labels.max() < len(images.classes) == len(set(images.classes))


def read_source(name: str, root: Path) -> None:
    data = of("pretrain.config", "DataConfig")(path=root / name, tar_index=root / "index")
    source = of("pretrain.data.sources", "open_source")(data)
    for index in range(len(source.names)):
        source.load(index)


def read_log(root: Path) -> None:
    lines, _ = of("common.plots", "read_log")(root / "training.jsonl")
    steps = [line["iteration"] for line in lines]
    assert steps == sorted(set(steps))
    of("common.files", "parse_json")((root / "training.jsonl").read_text(errors="replace").splitlines()[0])


def read_reference(root: Path) -> None:
    for layout in of("tables.layout", "LAYOUTS"):
        of("tables.reference", "read_reference")(layout, root / "reference")
    of("tables.reference", "read_checkpoints")(root / "reference/checkpoints.csv")


def read_photos(root: Path) -> None:
    source = of("pretrain.data.sources", "open_source")(of("pretrain.config", "DataConfig")(path=root / "photos"))
    for index, path in enumerate(source.names):
        try:
            assert of("pretrain.data.views", "decode_whole")(source.load(index)).shape[2] == 3
        except OSError as error:  # of which the loader says where
            raise OSError(f"{path}: {error}") from error


def read_predictions(root: Path) -> None:
    truth, predictions = root / "DAVIS/Annotations/480p", root / "predictions"
    if not predictions.exists():
        shutil.copytree(truth, predictions)
    scores = of("eval.propagation.measures", "score_sequences")(
        sorted(path.name for path in truth.iterdir()), truth, predictions
    )
    assert 0 <= scores.overall["J&F-Mean"] <= 1


def read_features(root: Path) -> None:
    store = of("eval.probes.cache", "FeatureStore")(root, {}, 3)
    if not store.has(0):
        store.write(0, np.ones((3, 4), np.float32))
    assert store.rows(of("torch", "arange")(3)).shape[0] == 3


def read_probe(root: Path) -> None:
    torch, config = importlib.import_module("torch"), of("eval.classification.config", "ClassificationConfig")
    options = config(backbone=root, data=root, output=root, epochs=2, batch_size=2)
    batches = [(torch.ones(2, 3), torch.tensor([0, 1]))]
    of("eval.classification.linear", "train_probe")(
        options, 2, lambda _: batches, lambda: batches, root / "linear.pth", {"seed": 0}
    )


@functools.cache
def a_run(output: Path) -> Any:
    config = of("pretrain.config", "parse_run")(tiny_run(output, output))
    networks = of("pretrain.networks", "build_networks")(config, of("torch", "device")("cpu"))
    module = importlib.import_module("pretrain.checkpoint")
    return module.Checkpoint(config.train, module.run_settings(config, ["a"]), networks, 2)


def read_pretraining(root: Path) -> None:
    checkpoint = a_run(root / "run")
    if not checkpoint.path.exists():
        checkpoint.write(1)
    assert checkpoint.restore() >= 0


def read_hugging_face(root: Path) -> None:
    """A folder with the network's numbers, and the index of its two shards, which are written first."""
    folder = root / "vit"
    if not (folder / "1.safetensors").exists():
        weights = list(make_all()["huggingface_vit"].checkpoint.items())
        for name, part in (("1.safetensors", weights[:9]), ("2.safetensors", weights[9:])):
            of("safetensors.torch", "save_file")(dict(part), folder / name)
    of("backbones.convert", "open_backbone")(folder)


def read_state(root: Path) -> None:
    """What tasks leave for their next start."""
    for folder in (root / "training", root / "masks"):
        folder.mkdir(exist_ok=True)
    of("eval.record", "_earlier_parts")(root / "training", "a")
    of("eval.openmmlab.finetune", "_begin")(root / "training", {"a": 1, "b": [2.5, "c"]})
    of("eval.propagation.writing", "claim")(root / "masks", {"first masks": ["0123"]})
    marker = of("tools.make_sample_data", "_is_drawn")(root / "photos", {})
    assert not marker


# Name -> which files are damaged, one at a time; what reads them.
PARSERS: dict[str, tuple[str, Callable[[Path], object]]] = {
    "results": ("results/*/*/result.json", read_results),
    "items": ("results/selfpatch_b/*/[ip]*.*", read_items),
    "coco": ("coco/annotations/*.json", read_coco),
    "davis": ("DAVIS/*/*/**/*.*", read_davis),
    "vip": ("VIP_Fine/*/**/*.*", read_vip),
    "jhmdb": ("JHMDB/*/**/*.*", read_jhmdb),
    "ade": ("ade/*/annotations/*/*.png", read_ade),
    "voc": ("VOCdevkit/VOC2012/[IS]*/**/*.*", partial(read_label_set, "VOCdevkit/VOC2012")),
    "cityscapes": ("cityscapes/gtFine/*/*/*.png", partial(read_label_set, "cityscapes")),
    "nyu lists": ("nyu/*.txt", read_nyu),
    "nyu depth": ("nyu/*/*/*.png", read_nyu),
    "landmarks": ("roxford5k/*.pkl", lambda root: of("eval.retrieval.data", "check_data")(root / "roxford5k")),
    "voc boxes": ("VOCdevkit/VOC2007/Annotations/*.xml", partial(read_boxes, "VOCdevkit/VOC2007")),
    "voc lists of boxes": ("VOCdevkit/VOC2007/ImageSets/Main/*.txt", partial(read_boxes, "VOCdevkit/VOC2007")),
    "coco 20k": ("coco20k/annotations/*.json", partial(read_boxes, "coco20k")),
    "classes": ("imagenet/classes.txt", read_classes),
    "images": ("imagenet/train/*/*.jpg", read_classes),
    "cifar": ("cifar/*", read_cifar),
    "recipe": ("recipe.yaml", lambda root: of("pretrain.config", "parse_run")([str(root / "recipe.yaml")])),
    "list": ("list.txt", partial(read_source, "list.txt")),
    "listing": ("coco/*/*train*.json", partial(read_source, "coco/annotations/instances_train2017.json")),
    "tar": ("shard.tar", partial(read_source, "shard.tar")),
    "log": ("training.jsonl", read_log),
    "photos": ("photos/cat/*.jpg", read_photos),
    "index": ("index/*.json", partial(read_source, "shard.tar")),
    "predictions": ("predictions/*/*.png", read_predictions),
    "features": ("*/*.npy", read_features),
    "probe": ("linear.pth", read_probe),
    "pretraining": ("run/checkpoint.pth", read_pretraining),
    "hugging face": ("vit/*.json", read_hugging_face),
    "state": ("training/*.json", read_state),
    "reference": ("reference/*.csv", read_reference),
}
# Errors name the file, but: results are named in the log, a log by who reads it, and others by an entry of theirs.
NAMED_ELSEWHERE = ("results", "log", "recipe", "list", "index")


def run_batch(name: str, count: int, root: Path) -> None:
    """Print the name of each damaged file before it is read; an error of the wrong kind ends the batch."""
    pattern, read = PARSERS[name]
    write_whole_files(root)
    read(root)  # whole files are read, or written first, and what that needs is loaded
    files = sorted(root.glob(pattern))
    limit = MEMORY + resource.getpagesize() * int(Path("/proc/self/statm").read_text().split()[0])
    resource.setrlimit(resource.RLIMIT_AS, (limit, limit))

    numbers = itertools.count()

    @settings(
        max_examples=count,
        phases=[Phase.generate],
        derandomize=True,
        database=None,
        deadline=None,
        suppress_health_check=list(HealthCheck),
    )
    @given(JSON)
    def is_read_or_refused(value: str) -> None:
        number = next(numbers)  # hypothesis itself would draw two of three numbers again
        chance = random.Random(number)
        path = chance.choice(files)
        whole = path.read_bytes()
        path.write_bytes(mutated(whole, path.suffix, chance, value))
        print(number, path.name, value[:100], flush=True)
        signal.alarm(SECONDS_EACH)  # which ends the process
        try:
            read(root)
        except (ValueError, OSError) as error:
            said = one_line(str(error))
            is_named = path.stem in said or path.parent.name in said  # such as a sequence whose first mask it is
            assert is_named or name in NAMED_ELSEWHERE, error  # noqa: PT017 - it may also be read
        finally:
            signal.alarm(0)
            path.write_bytes(whole)

    is_read_or_refused()


@pytest.mark.long
@pytest.mark.parametrize("name", PARSERS)
def test_damaged_files_end_in_one_line_or_a_right_value(name: str, tmp_path: Path) -> None:
    command = [sys.executable, "-m", "tests.test_fuzz", name, "2000", str(tmp_path)]
    options: dict[str, Any] = {"cwd": REPOSITORY, "env": ENVIRONMENT, "timeout": SECONDS_ALL}
    finished = subprocess.run(command, capture_output=True, text=True, check=False, **options)
    lines = finished.stdout.splitlines()
    assert finished.returncode == 0, f"status {finished.returncode} after {lines[-1:]}: {finished.stderr[-3000:]}"
    assert any(line.startswith("1999 ") for line in lines), "fewer inputs"


if __name__ == "__main__":
    run_batch(sys.argv[1], int(sys.argv[2]), Path(sys.argv[3]))
