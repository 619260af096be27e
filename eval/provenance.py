"""What a result says about its data, its backbone and its surroundings."""

import importlib.metadata
import platform
import subprocess
from collections.abc import Iterable
from dataclasses import asdict
from pathlib import Path

import torch

from backbones.file import BackboneFile
from backbones.spec import spec_to_dict
from common.files import text_sha256
from eval.result import SAMPLE_MARKER, BackboneRecord, Coverage, Dataset, Environment

_PACKAGES = (
    "torch",
    "torchvision",
    "timm",
    "numpy",
    "opencv-python-headless",
    "pillow",
    "scipy",
    "pycocotools",
    "onedl-mmengine",
    "onedl-mmcv",
    "onedl-mmdetection",
    "onedl-mmsegmentation",
)


def describe_dataset(
    root: Path, name: str, split: str, items: Iterable[str], full_size: int, restricted: bool = False, content: str = ""
) -> Dataset:
    """Fingerprint one split.

    Args:
        root: Folder of the dataset, where the marker of sample data lies.
        name: Such as `COCO 2017`.
        split: Such as `val2017`.
        items: One string per item that identifies it (name; also frame count, size or annotation count where known).
        full_size: Number of items of the whole published split.
        restricted: Whether the user asked for a part of the split.
        content: Digest of what belongs to the items, such as their annotations.
    """
    listing = sorted(items)
    coverage: Coverage = "full" if len(listing) == full_size and not restricted else "subset"
    if (root / SAMPLE_MARKER).exists():
        coverage = "sample"
    return Dataset(
        name=name,
        split=split,
        num_items=len(listing),
        listing_sha256=text_sha256("\n".join([*listing, content] if content else listing)),
        coverage=coverage,
    )


def describe_backbone(name: str, backbone: BackboneFile) -> BackboneRecord:
    """The record of a backbone file."""
    return BackboneRecord(name=name, sha256=backbone.sha256, spec=spec_to_dict(backbone.spec), source=asdict(backbone.source))


def describe_environment(device: torch.device, world_size: int = 1) -> Environment:
    """Device, package versions and code revision."""
    packages = {"python": platform.python_version()}
    for package in _PACKAGES:
        try:
            packages[package] = importlib.metadata.version(package)
        except importlib.metadata.PackageNotFoundError:
            continue  # a task runs with only the packages that it needs
    name = torch.cuda.get_device_name(device) if device.type == "cuda" else device.type
    return Environment(device=name, world_size=world_size, packages=packages, code=_code_revision())


def _code_revision() -> str:
    root = Path(__file__).resolve().parent.parent
    command = ["git", "-C", str(root), "describe", "--always", "--dirty", "--abbrev=40", "--exclude=*"]
    try:
        return subprocess.run(command, check=True, capture_output=True, text=True, timeout=10).stdout.strip()
    except (OSError, subprocess.SubprocessError):
        return "unknown"
