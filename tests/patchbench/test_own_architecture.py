"""Own architectures in memory, and functions that return them."""

import threading
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import nn

import patchbench
import tools.evaluation
from backbones.foreign import weights_sha256
from backbones.memory import convert_network, weights_of
from backbones.spec import FunctionSpec
from tests import architectures
from tests.patchbench.conftest import OPTIONS, Evaluate, figures

OWN = """
from torch import nn

def build():
    network = nn.Conv2d(3, 16, 16, 16)
    network.image_size = 64
    return network
"""


def test_a_function_that_returns_an_own_architecture(
    evaluate: Evaluate, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    (tmp_path / "own_architecture.py").write_text(OWN)
    monkeypatch.syspath_prepend(tmp_path)
    results = evaluate("own_architecture:build")
    assert {result.backbone.spec["function"] for result in results.values()} == {"own_architecture:build"}
    assert results["davis"].backbone.name == "run"


@pytest.mark.parametrize("name", ["one_map", "stages", "blocks"])
def test_an_own_architecture_in_memory_gives_the_figures_of_its_function(name: str, evaluate: Evaluate, tmp_path: Path) -> None:
    options = OPTIONS
    if name == "blocks":  # with patches of 14 pixels
        options = {
            "davis": {**OPTIONS["davis"], "round_up": True},
            "classification": {**OPTIONS["classification"], "resize": 70, "crop": 70},
        }
    torch.manual_seed(0)  # as for what a function leaves random
    network = getattr(architectures, name)()
    found = evaluate(torch.compile(network.train()), options=options, epoch=7)
    assert figures(found) == figures(evaluate(f"tests.architectures:{name}", output=tmp_path / "of_function", options=options))
    assert network.training
    backbone = found["davis"].backbone
    kind = type(network).__name__
    assert (backbone.spec["function"], backbone.source["file_name"]) == (f"tests.architectures:{kind}", f"{kind} in memory")
    assert backbone.source["sha256"] == weights_sha256({f"network.{key}": value for key, value in network.state_dict().items()})
    assert (backbone.source["epoch"], len(backbone.spec["source_sha256"])) == (7, 64)
    assert evaluate(network, options=options) == found  # is only read again
    with torch.no_grad():
        next(network.parameters()).mul_(2)
    with pytest.raises(ValueError, match="is of other weights than this network; choose another output"):
        evaluate(network, options=options)


def test_settings_of_an_own_architecture_are_part_of_its_digest() -> None:
    def digest(network: nn.Module) -> str:
        spec = convert_network(network, weights_of(network)).spec
        assert isinstance(spec, FunctionSpec)
        return spec.source_sha256

    class Scaled(nn.Module):
        def __init__(self, factor: float) -> None:
            super().__init__()
            self.pool, self.factor = nn.AvgPool2d(16), factor

        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return self.pool(images) * self.factor

    class Negated(Scaled):
        def forward(self, images: torch.Tensor) -> torch.Tensor:
            return -super().forward(images)

    networks = [Scaled(2), Scaled(3), Negated(2), nn.AvgPool2d(16), nn.AvgPool2d(32)]
    assert len({digest(network) for network in networks}) == len(networks)
    assert digest(Scaled(2)) == digest(Scaled(2))


class WithNeck(nn.Module):
    """A network of a known layout, and a layer after it."""

    def __init__(self, vit: nn.Module, neck: nn.Module) -> None:
        super().__init__()
        self.vit, self.neck = vit, neck

    def forward(self, images: torch.Tensor) -> torch.Tensor:
        return self.neck(self.vit.forward_features(images)[:, 1:].transpose(1, 2).unflatten(2, (4, 4)))  # type: ignore[operator]


def test_layers_after_a_known_network_are_not_left_out(network: nn.Module, caplog: pytest.LogCaptureFixture) -> None:
    same = WithNeck(network, nn.Identity())
    assert convert_network(same, weights_of(same)).source.format == "timm"
    other = WithNeck(network, nn.Conv2d(96, 8, 1))
    other.image_size = 64
    assert convert_network(other, weights_of(other)).source.format == "function"
    assert "computes other features with them; so it is taken by the maps of its forward" in caplog.text


@pytest.mark.parametrize(
    ("change", "tasks", "message"),
    [
        (
            lambda network: network,
            "davis,detection",
            "detection: trains the network in other processes, .* package.module:build",
        ),
        (
            lambda network: network.embed.weight.data.fill_(torch.nan),
            "davis",
            "weights that are not finite numbers: network.embed",
        ),
        (
            lambda network: setattr(network, "lock", threading.Lock()),
            "davis",
            "Patches: it cannot be copied .*; give a function",
        ),
        (lambda network: setattr(network, "image_size", 64.5), "davis", "its image_size is 64.5; it must be a side in pixels"),
    ],
)
def test_mistakes_with_an_own_architecture(
    change: Callable[[Any], Any], tasks: str, message: str, data: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    change(network := architectures.Patches())
    monkeypatch.setattr(tools.evaluation, "check_tasks", lambda *_: None)  # data of COCO are not there
    with pytest.raises(ValueError, match=message) as caught:
        patchbench.evaluate(network, tasks, data=data, output=tmp_path / "run")
    assert "\n" not in str(caught.value)


def test_an_own_architecture_without_a_map_is_refused_before_the_training(data: Path, tmp_path: Path) -> None:
    options = {"davis": OPTIONS["davis"]}
    with pytest.raises(
        ValueError, match=r"no known layout matches.*; and it is no network of an own architecture: .*wanted four sides"
    ):
        patchbench.EveryNEpochs(architectures.Flat(), "davis", data=data, output=tmp_path / "flat", options=options)
