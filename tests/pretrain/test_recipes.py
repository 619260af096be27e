"""Every recipe reads, is over its base what it says, and takes a training step at toy size."""

import math
import re
from pathlib import Path

import pytest
import torch

from backbones.build import build_backbone
from pretrain.config import RECIPES, PretrainConfig, parse_run, read_recipe, recipe_names
from pretrain.networks import backbone_spec, build_networks
from tests.pretrain.conftest import take_step

IMAGES = 3
DOCUMENT = Path(__file__).resolve().parents[2] / "docs" / "pretraining_choices.md"


def test_the_document_names_what_there_is() -> None:
    text = DOCUMENT.read_text(encoding="utf-8")
    named = set(re.findall(r"`(\w+)`", text.split("## Choices")[0].split("## Recipes of the tables")[1]))
    assert named == {name for name in recipe_names() if not name.startswith("sample_")}
    files = re.findall(r"\| `([\w/]+\.(?:py|yaml))` \|$", text, re.MULTILINE)
    assert len(files) > 20
    assert not [name for name in files if not (RECIPES.parent / name).is_file()]


def toy(recipe: str) -> PretrainConfig:
    """The recipe with narrow networks and small crops; everything else as it stands."""
    full = parse_run([recipe])
    side = full.backbone.stride
    options = {
        "views.global_size": 6 * side,
        "views.local_size": 5 * side,
        "views.local_crops": min(full.views.local_crops, 1),
        "train.batch_size": IMAGES,
        "train.device": "cpu",
    }
    if full.backbone.family == "swin":
        options |= {"backbone.embed_dim": 12, "backbone.stage_depths": [1, 1, 1, 1], "views.global_size": 3 * side}
    else:
        options |= {"backbone.embed_dim": 24, "backbone.depth": 2, "backbone.num_heads": 3}
    if full.reads("dino"):
        options |= {"dino.out_dim": 16, "dino.hidden_dim": 16, "dino.bottleneck_dim": 8}
    if full.reads("moby"):
        options |= {"moby.hidden_dim": 16, "moby.out_dim": 8, "moby.queue": 20}
    elif full.reads("selfpatch"):
        options["selfpatch.out_dim"] = 16
    return parse_run([recipe, *(str(token) for name, value in options.items() for token in (f"--{name}", value))])


@pytest.mark.parametrize("recipe", recipe_names())
def test_every_recipe_takes_a_step(recipe: str) -> None:
    config = toy(recipe)
    networks = build_networks(config, torch.device("cpu"))
    before = {name: value.clone() for name, value in networks.student.named_parameters() if value.requires_grad}
    losses = take_step(config, networks, IMAGES)
    assert all(math.isfinite(value.item()) for value in losses.values())
    still = [name for name, value in networks.student.named_parameters() if name in before and torch.equal(value, before[name])]
    assert not still, "every trainable parameter takes part in the loss"
    assert not [name for name, value in networks.teacher.named_parameters() if value.grad is not None]


@pytest.mark.parametrize(
    ("recipe", "millions"),
    [("imagenet_selfpatch_vit_small", 21.6), ("imagenet_selfpatch_vit_base", 85.6), ("coco_selfpatch_vit_tiny", 5.5),
     ("coco_selfpatch_vit_tiny8", 5.5), ("coco_moby_swin_tiny", 27.5)],
)  # fmt: skip
def test_backbones_have_their_published_size(recipe: str, millions: float) -> None:
    config = parse_run([recipe])
    spec = backbone_spec(config)
    with torch.device("meta"):
        parameters = sum(parameter.numel() for parameter in build_backbone(spec).parameters())
    assert parameters / 1e6 == pytest.approx(millions, abs=0.2)


# Images that share their draws, batch, prototypes, patch, epochs, loss, weight of the CLS term; the sources are in the recipes.
MATCHING_RUNS = {
    "cifar10_matching_vit_tiny": (0, 3 * 130, 1000, 16, 100, "weighted", 0.9),
    "imagenet100_matching_vit_tiny": (0, 3 * 90, 1000, 16, 100, "joint", 0.9),
    "imagenet100_matching_vit_base_patches": (0, 3 * 30, 10000, 16, 120, "joint", 0.9),
    "imagenet_matching_vit_base": (4, 4 * 4, 65536, 16, 100, "sum", 0.8),
    "imagenet_matching_vit_small8": (6, 4 * 6, 10000, 8, 100, "joint", 0.9),
}


@pytest.mark.parametrize("recipe", MATCHING_RUNS)
def test_patch_matching_runs_as_the_authors_branches(recipe: str) -> None:
    run = parse_run([recipe])
    found = (run.views.shared_by, run.train.batch_size, run.dino.out_dim, run.backbone.patch_size, run.train.epochs)
    assert (*found, run.matching.loss, run.matching.cls_weight) == MATCHING_RUNS[recipe]
    assert (run.views.global_scale, run.views.local_scale) == ((0.4, 1.0), (0.05, 0.4))


def test_dino_row_is_vissls_recipe_and_the_authors_own_is_another() -> None:
    vissl, boost = parse_run(["imagenet_dino_vit_small"]), parse_run(["imagenet_dino_vit_small_boost"])
    for run in (vissl, boost):
        assert (run.train.batch_size, run.train.epochs, run.dino.norm_last_layer) == (1024, 300, False)
        assert (run.dino.warmup_teacher_temperature, run.dino.teacher_temperature) == (0.04, 0.07)
    assert (vissl.optim.clip_grad, vissl.views.saturation, vissl.views.interpolation) == (0, 0.4, "bilinear")
    assert (boost.optim.clip_grad, boost.views.saturation, boost.views.interpolation) == (3, 0.2, "bicubic")
    assert parse_run(["imagenet_moby_vit_small"]).views.interpolation == "bilinear"


def test_own_fields_win_over_bases_and_later_bases_over_earlier_ones(tmp_path: Path) -> None:
    (tmp_path / "first.yaml").write_text("method: dino\noptim: {lr: 1.0, min_lr: 0.5}\ntrain: {epochs: 5}\n")
    (tmp_path / "second.yaml").write_text("optim: {lr: 2.0, clip_grad: 7.0}\n")
    recipe = tmp_path / "own.yaml"
    recipe.write_text("extends: [first, second]\noptim: {clip_grad: 9.0}\n")
    assert read_recipe(recipe) == {
        "method": "dino",
        "optim": {"lr": 2.0, "min_lr": 0.5, "clip_grad": 9.0},
        "train": {"epochs": 5},
    }
    recipe.write_text("extends: coco_selfpatch_vit_tiny\nselfpatch: {k: 3}\n")
    assert read_recipe(recipe) == {**read_recipe(RECIPES / "coco_selfpatch_vit_tiny.yaml"), "selfpatch": {"k": 3}}


@pytest.mark.parametrize(
    ("extends", "message"),
    [("nowhere", r"own\.yaml: extends 'nowhere'"), ("3", "extends: must be"), ("other", "extends itself")],
)
def test_bad_extensions_are_named(tmp_path: Path, extends: str, message: str) -> None:
    (tmp_path / "other.yaml").write_text("extends: own\n")
    recipe = tmp_path / "own.yaml"
    recipe.write_text(f"extends: {extends}\n")
    with pytest.raises(ValueError, match=message):
        parse_run([str(recipe)])


LAUGHS = "a: &a [x, x, x, x]\n" + "".join(
    f"{b}: &{b} [*{a}, *{a}, *{a}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("optim:\n  lr: 1\n  lr: 2", "lr is given twice.*line 2"),
        ("optim.lr: 1", "optim.lr: is 1; give it fields"),
        ("optim:", "optim: is nothing"),
        ("optim: 3", "optim: is 3"),
        ("method: ~", "method: is nothing"),
        (LAUGHS, "aliases are not allowed"),
        ("train: {seed: 010}", "not a recipe in YAML: 010 is no decimal number"),
        ("optim: {lr: " + "9" * 5000 + "}", "not a recipe in YAML"),
        ("\x00", "not a recipe in YAML"),
        ("\udcff", "not a recipe in YAML"),
        ("a: [", "not a recipe in YAML"),
        ("just text", "not a recipe; it must map sections to fields"),
        ("", "not a recipe; it must map sections to fields"),
    ],
)
def test_recipes_that_say_nothing_or_two_things_are_named(tmp_path: Path, text: str, message: str) -> None:
    """The rules of strict YAML have tests of their own."""
    (tmp_path / "own.yaml").write_text(text, errors="surrogateescape")
    (tmp_path / "over.yaml").write_text("extends: own\nmethod: dino\n")
    for recipe in ("own", "over"):
        with pytest.raises(ValueError, match=rf"^{tmp_path}/own\.yaml: .*{message}") as caught:
            parse_run([f"{tmp_path}/{recipe}.yaml"])
        assert "\n" not in str(caught.value)


def test_home_folders_are_expanded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In every option that is a path, on the command line and in recipes, where no shell does it."""
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "own.yaml").write_text("extends: sample_dino\ndata: {path: ~/set, tar_index: '~'}\nwatch: {images: ~/a b}\n")
    run = parse_run(["~/own.yaml", "--train.output=~/run", "--watch.knn_train", "~/1", "--watch.knn-val", "~/2"])
    assert (run.data.path, run.data.tar_index, run.watch.images) == (tmp_path / "set", tmp_path, tmp_path / "a b")
    assert (run.train.output, run.watch.knn_train, run.watch.knn_val) == (tmp_path / "run", tmp_path / "1", tmp_path / "2")
    with pytest.raises(ValueError, match=r"data\.path ~nobody-of-this-name/set: no such home folder"):
        parse_run(["sample_dino", "--data.path", "~nobody-of-this-name/set"])
    monkeypatch.setenv("SCRATCH", "/scratch")
    (tmp_path / "own.yaml").write_text("extends: sample_dino\ntrain: {output: $SCRATCH/run, resume: '${SCRATCH}/a.pth'}\n")
    run = parse_run(["~/own.yaml"])
    assert (run.train.output, run.train.resume) == (Path("/scratch/run"), "/scratch/a.pth")
    (tmp_path / "own.yaml").write_text("extends: sample_dino\ntrain: {output: $NOT_SET/run}\n")
    with pytest.raises(ValueError, match=r"own\.yaml: train\.output: the environment variable of \$NOT_SET is not set"):
        parse_run(["~/own.yaml"])
    (tmp_path / "own.yaml").write_text("extends: sample_dino\ndata: {path: ~}\n")
    with pytest.raises(ValueError, match=r"--data\.path None: a path is needed"):
        parse_run(["~/own.yaml"])


DINO, MOBY, SWIN, BOTH = "coco_dino_vit_tiny", "coco_moby_vit_tiny", "coco_moby_swin_tiny", "coco_moby_selfpatch_swin_tiny"
PATCH, MATCHING = "coco_selfpatch_vit_tiny", "imagenet100_matching_vit_tiny"


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (f"{DINO} --selfpatch.k 2", "`selfpatch` have no effect"),
        (f"{DINO} --moby.queue 2", "`moby` have no effect"),
        (f"{MOBY} --dino.out_dim 2", "`dino` have no effect"),
        ("coco_moby_selfpatch_vit_tiny --selfpatch.out_dim 2", "selfpatch.out_dim=2 has no effect"),
        (f"{MOBY} --views.local_crops 2", "must be 0"),
        (f"{MOBY} --optim.freeze_last_layer_epochs 1", "no prototypes to freeze"),
        (f"{SWIN} --backbone.depth 3", "backbone.depth=3 has no effect"),
        (f"{SWIN} --views.global_size 208", "multiple of 32"),
        (f"{BOTH} --selfpatch.window 9", "7 patches wide"),
        (f"{PATCH} --selfpatch.window 4", "selfpatch.window=4 must be odd"),
        (f"{PATCH} --selfpatch.window 1", "selfpatch.window=1 must be odd and at least 3"),
        (f"{PATCH} --selfpatch.k 9", "selfpatch.k=9 exceeds the 8 candidates"),
        (f"{DINO} --backbone.patch_size 0", "backbone.patch_size=0 must be at least 1"),
        (f"{DINO} --backbone.depth -2", "backbone.depth=-2 must be at least 1"),
        (f"{SWIN} --backbone.stage_heads 3 0 12 24", r"backbone.stage_heads=\(3, 0, 12, 24\) must be at least 1 each"),
        (f"{DINO} --train.device gpu", "train.device=gpu must be auto, cpu, cuda or cuda:N"),
        (f"{DINO} --train.output=", "--train.output is empty: a path is needed"),
        (f"{PATCH} --selfpatch.k 0", "selfpatch.k=0 must be at least 1"),
        (f"{PATCH} --selfpatch.weight -1", "selfpatch.weight=-1.0 must be at least 0"),
        (f"{DINO} --optim.lr 0", "optim.lr=0.0 must be positive"),
        (f"{DINO} --optim.lr inf", "optim.lr=inf must be positive"),
        (f"{DINO} --train.seed -1", r"train.seed=-1 must be in \[0, 2\^32\)"),
        (f"{DINO} --train.seed 4294967296", r"train.seed=4294967296 must be in \[0, 2\^32\)"),
        (f"{DINO} --watch.knn_train a/b/.. --watch.knn_val a", "watch.knn_val: a is watch.knn_train"),
        (f"{DINO} --optim.teacher_momentum 1.5", r"optim.teacher_momentum=1.5 must be in \[0, 1\]"),
        (f"{DINO} --optim.clip_grad -1", "optim.clip_grad=-1.0 must be at least 0"),
        (f"{DINO} --optim.warmup_epochs -1", "optim.warmup_epochs=-1 must be at least 0"),
        (f"{MATCHING} --matching.cls_weight 0.5", "no effect with matching.loss: joint"),
        (f"{MATCHING} --matching.loss weighted --matching.cls_weight 1.5", "cls_weight=1.5"),
        (f"{MATCHING} --matching.loss sum", "views.shared_by=0 must be positive"),
        (f"{DINO} --data.pin_workers true --data.workers 0", "data.pin_workers has no effect with data.workers=0"),
        (f"{DINO} --views.global_scale 0.9 0.3", "views.global_scale"),
        (f"{DINO} --views.photometric_patch 16 --views.on_device true", "leave out views.on_device"),
        (f"{DINO} --views.photometric_patch 64", "views.photometric_patch=64 does not divide the crops"),
        (f"{DINO} --optim.warmup_epochs 200", "warmup_epochs=200 leaves nothing"),
        (f"{DINO} --train.accumulate 3", "train.accumulate=3 does not divide train.batch_size=256"),
        (f"{DINO} --watch.num_images 0", "watch.num_images=0"),
        (f"{DINO} --watch.knn_val a", "come together"),
        (f"{DINO} --watch.every 0 --watch.images a", "watch.images has no effect"),
    ],
)
def test_options_that_cannot_be_are_refused(arguments: str, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        parse_run(arguments.split())
