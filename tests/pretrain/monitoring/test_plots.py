"""What plots show is what the networks compute, the marks are where the mathematics says, and `python -m pretrain.monitoring`."""

import contextlib
from pathlib import Path

import pytest
import torch
from matplotlib.axes import Axes
from matplotlib.colors import to_hex
from matplotlib.patches import ConnectionPatch, Rectangle
from torch import nn

from backbones.build import build_backbone
from backbones.spec import SwinSpec, ViTSpec
from backbones.vit import ViT
from pretrain.checkpoint import Checkpoint, run_settings
from pretrain.config import PretrainConfig, ViewsConfig
from pretrain.data.sources import ImageFiles, images_of_folder
from pretrain.methods import SelfPatchConfig
from pretrain.monitoring.__main__ import main
from pretrain.monitoring.plots import (
    QUERIES,
    DrawnImage,
    Subject,
    choose_images,
    draw_matches,
    draw_positives,
    image_attention,
    open_subject,
    principal_colours,
    squares,
    subject_of,
    undisturbed,
)
from pretrain.networks import Networks, build_networks
from pretrain.objectives.selfpatch import Aggregation, candidate_table, select_positives
from tests.conftest import RunMain
from tests.pretrain.conftest import tiny_config

CPU = torch.device("cpu")
SIDE = 12
RED, GREEN, WHITE = "#ff1744", "#00e676", "#ffffff"
SPEC = ViTSpec(
    embed_dim=24, depth=2, num_heads=3, patch_size=8, image_size=32, class_token=True, final_norm=True, register_tokens=2,
    class_position=False,
)  # fmt: skip
HEADS = ["mean of heads", "head 1", "head 2", "head 3"]


def randomised(network: nn.Module) -> nn.Module:
    for parameter in network.parameters():
        torch.nn.init.normal_(parameter, std=0.3)
    return network.eval()


@pytest.fixture
def vit() -> ViT:
    torch.manual_seed(0)
    network = randomised(build_backbone(SPEC))
    assert isinstance(network, ViT)
    return network


@torch.no_grad()
def test_cls_attention_is_what_the_block_uses(vit: ViT) -> None:
    attention, seen = vit.blocks[-1].attn, []
    attention.register_forward_hook(lambda module, arguments, output: seen.append((arguments[0], output)))
    maps, _, heads = image_attention(Subject(vit), torch.randn(2, 3, 32, 48))
    assert heads == HEADS
    assert maps.shape == (2, 4, 4, 6)
    torch.testing.assert_close(maps[:, 0], maps[:, 1:].mean(1))
    tokens, output = seen[0]
    query, key, values = attention.qkv(tokens).unflatten(2, (3, 3, 8)).permute(2, 0, 3, 1, 4)
    all_weights = (query[:, :, :1] * 8**-0.5 @ key.transpose(-2, -1)).softmax(-1)
    # What the CLS token gets from the patches; the rest comes from the prefix, whose weights are not drawn.
    all_weights[:, :, 0, vit.num_prefix_tokens :] = maps[:, 1:].flatten(2)
    torch.testing.assert_close(attention.proj((all_weights @ values)[:, :, 0].flatten(1)), output[:, 0])


@torch.no_grad()
def test_aggregation_attention_is_what_the_module_uses(vit: ViT) -> None:
    aggregation = randomised(Aggregation(dim=24, num_heads=3))
    assert isinstance(aggregation, Aggregation)
    images = torch.randn(2, 3, 24, 24)
    maps, what, heads = image_attention(Subject(vit, aggregation), images)
    assert "SelfPatch" in what
    assert heads == HEADS
    patches, weights = vit.forward_tokens(images).patches, maps[:, 1:].flatten(2)
    cls = aggregation.blocks[0](aggregation.cls_token.expand(2, 1, -1), patches, None)
    last = aggregation.blocks[1]
    tokens = last.norm1(torch.cat([cls, patches], dim=1))
    values = last.value(tokens).unflatten(2, (3, 8)).transpose(1, 2)
    all_weights = torch.cat([1 - weights.sum(-1, keepdim=True), weights], dim=-1)
    cls = cls + last.projection((all_weights[:, :, None] @ values)[:, :, 0].flatten(1))[:, None]
    torch.testing.assert_close(aggregation(patches), aggregation.norm(cls + last.mlp(last.norm2(cls))))


@torch.no_grad()
def test_without_a_cls_token_each_position_is_compared_with_the_mean() -> None:
    swin = build_backbone(SwinSpec(embed_dim=12, depths=(1, 1), num_heads=(2, 2), window_size=4, image_size=32)).eval()
    images = torch.randn(2, 3, 64, 64)
    cosines, what, _ = image_attention(Subject(swin), images)
    assert "no CLS token" in what
    patches = nn.functional.normalize(swin.forward_tokens(images).patches, dim=-1)
    mean = nn.functional.normalize(swin.forward_tokens(images).patches.mean(1), dim=-1)
    torch.testing.assert_close(cosines, (patches @ mean[..., None]).view(2, 1, 8, 8))


def test_components_are_three_known_directions_or_one_colour() -> None:
    """Patches that lie on three axes of falling length, hidden by a rotation; and patches of a network that has collapsed."""
    generator = torch.Generator().manual_seed(0)
    scores = torch.rand(2, 50, 3, generator=generator).sub(0.5) * torch.tensor([9.0, 3.0, 1.0])
    rotation = torch.linalg.qr(torch.randn(8, 8, generator=generator)).Q
    colours, explained = principal_colours(scores @ rotation[:3] + 5.0)
    assert explained == pytest.approx(1)
    correlations = torch.corrcoef(torch.cat([colours.flatten(0, 1), scores.flatten(0, 1)], dim=1).T)
    assert (correlations[:3, 3:].diag().abs() > 0.95).all()
    assert (colours.amin(), colours.amax()) == (0, 1)
    colours, explained = principal_colours(torch.ones(2, 9, 4))
    assert explained == 1
    assert len(colours.flatten(0, 1).unique(dim=0)) == torch.isfinite(colours).all() == 1


def test_modes_are_restored_even_after_an_error() -> None:
    network = nn.Sequential(nn.Linear(2, 2), nn.Dropout(), nn.BatchNorm1d(2))
    network[1].eval()  # a part that is not in training mode stays so
    with contextlib.suppress(OSError), undisturbed(network):
        assert not any(module.training for module in network.modules())
        assert not network(torch.rand(3, 2)).requires_grad
        raise OSError
    assert [module.training for module in network.modules()] == [True, True, False, True]
    assert torch.is_grad_enabled()


# What is marked.


@pytest.fixture
def subject() -> Subject:
    torch.manual_seed(0)
    spec = ViTSpec(embed_dim=16, depth=1, num_heads=2, patch_size=8, image_size=8 * SIDE, class_token=False, final_norm=False)
    return Subject(build_backbone(spec).eval())


@pytest.fixture
def images_to_draw(image_folder: Path) -> list[DrawnImage]:
    return choose_images(images_of_folder(image_folder), 2, spread=False)


@pytest.mark.parametrize(("window", "border", "k"), [(3, "wrap", 4), (5, "clamp", 2)])
@torch.no_grad()
def test_positives_and_candidates(subject: Subject, images_to_draw: list[DrawnImage], window: int, border: str, k: int) -> None:
    def marked(axes: Axes, colour: str) -> set[int]:
        boxes = [box for box in axes.patches if isinstance(box, Rectangle) and to_hex(box.get_edgecolor()) == colour]
        return {int(box.get_y()) * SIDE + int(box.get_x()) for box in boxes}

    config = SelfPatchConfig(window=window, border=border, k=k)  # type: ignore[arg-type]
    figure = draw_positives(subject, images_to_draw, config)
    _, images = squares(subject, images_to_draw)
    positives = select_positives(subject.backbone.forward_tokens(images).patches, (SIDE, SIDE), window, k, config.border)
    table = candidate_table((SIDE, SIDE), window, config.border)
    for row in (0, 1):
        for axes, (y, x) in zip(figure.axes[row * 4 + 1 : row * 4 + 4], QUERIES, strict=True):
            query = int(y * SIDE) * SIDE + int(x * SIDE)
            expected = set(positives[row, query].tolist())
            assert marked(axes, RED) == {query}
            assert marked(axes, GREEN) == expected
            assert marked(axes, WHITE) == set(table[query].tolist()) - expected


def test_joined_patches_show_the_same_part_of_the_image(subject: Subject, images_to_draw: list[DrawnImage]) -> None:
    checked = 0
    for drawn in images_to_draw:
        figure = draw_matches(subject, [drawn], ViewsConfig(global_size=8 * SIDE, local_size=48, local_crops=2))
        overview, *panels = figure.axes
        boxes = [box.get_bbox().bounds for box in overview.patches if isinstance(box, Rectangle)]
        sides = [axes.images[0].get_extent()[1] for axes in panels]
        for line in (artist for artist in figure.artists if isinstance(artist, ConnectionPatch)):
            places = []
            for axes, (x, y), side, (left, top, width, height) in zip(panels, (line.xy1, line.xy2), sides, boxes, strict=True):
                across = 1 - x / side if "mirrored" in axes.get_xlabel() else x / side
                places.append((left + across * width, top + y / side * height))
            # Rounding to whole patches of both crops moves a place by a patch of each at most.
            reach_x, reach_y = (sum(box[axis] / SIDE for box in boxes) for axis in (2, 3))
            assert abs(places[0][0] - places[1][0]) <= reach_x
            assert abs(places[0][1] - places[1][1]) <= reach_y
            checked += 1
    assert checked > 5


def test_images_that_cannot_be_read_are_not_drawn(image_folder: Path, tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    (tmp_path / "a.jpg").write_bytes(b"no image")
    readable = map(str, image_folder.rglob("*.jpg"))
    assert len(choose_images(ImageFiles(tmp_path, ["a.jpg", *readable]), 2, spread=True)) == 2
    assert "a.jpg" in caplog.text
    with pytest.raises(ValueError, match=r"none of the 1 images.*a\.jpg"):
        choose_images(ImageFiles(tmp_path, ["a.jpg"]), 2, spread=False)


# A finished checkpoint.


def checkpoint_of(config: PretrainConfig) -> tuple[Path, Networks]:
    networks = build_networks(config, CPU)
    for parameter in networks.student.parameters():
        parameter.data.zero_()
    checkpoint = Checkpoint(config.train, run_settings(config, []), networks, 1)
    checkpoint.write(1)
    return checkpoint.path, networks


@pytest.mark.parametrize("method", ["selfpatch", "moby_selfpatch"])
@torch.no_grad()
def test_the_subject_is_the_teacher_that_was_trained(tmp_path: Path, method: str) -> None:
    """Also of a MoBY run, whose student is what evaluation takes."""
    config = tiny_config(method, output=tmp_path, selfpatch__k=2, selfpatch__border="clamp")
    path, networks = checkpoint_of(config)
    opened, trained = open_subject(path, CPU), subject_of(networks.teacher, config)
    assert (opened.size, opened.stride, opened.selfpatch) == (32, 8, config.selfpatch)
    images = torch.randn(1, 3, 32, 32)
    patches = trained.backbone.eval().forward_tokens(images).patches
    torch.testing.assert_close(opened.backbone.eval().forward_tokens(images).patches, patches)
    assert opened.aggregation is not None
    assert trained.aggregation is not None
    torch.testing.assert_close(opened.aggregation(patches), trained.aggregation(patches))


@pytest.mark.parametrize(("name", "positives"), [("selfpatch_full", True), ("moby_swin_tiny", False), ("dino_full", False)])
def test_published_layouts(golden_dir: Path, name: str, positives: bool) -> None:
    subject = open_subject(golden_dir / "formats" / f"{name}.pth", CPU)
    assert (subject.selfpatch is not None) == positives
    assert subject.aggregation is None


@pytest.mark.parametrize(
    ("options", "message"),
    [([], ""), (["--images", "/nowhere"], "images: /nowhere is not a folder"), (["--num_images", "0"], "num_images=0")],
)
def test_the_command(image_folder: Path, tmp_path: Path, run_main: RunMain, options: list[str], message: str) -> None:
    checkpoint, _ = checkpoint_of(tiny_config("selfpatch", output=tmp_path))
    usual = ["--checkpoint", checkpoint, "--images", image_folder, "--output", tmp_path / "out", "--num-images", 1]
    finished = run_main(main, [*usual, *options])
    if message:
        assert message in finished.mistake()
    else:
        finished.output()
        assert {path.stem for path in (tmp_path / "out").iterdir()} == {"attention", "components", "positives"}
