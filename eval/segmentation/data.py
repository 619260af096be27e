"""ADE20K as the scene-parsing challenge ships it: which pairs a run uses, and whether all of it is there and whole."""

from pathlib import Path

from eval.findings import Finding, refuse
from eval.probes.data import Split, list_splits
from eval.probes.sets import ADE20K

ADDRESS = ADE20K.address
FULL_SIZES = ADE20K.sizes
LARGEST_LABEL = ADE20K.num_classes


def check_data(root: Path, max_train_images: int | None = None, max_val_images: int | None = None) -> dict[str, Split]:
    """List both splits, or the first N pairs of each by name, after proving that images and label maps are paired.

    ValueError names every folder that is missing or empty, and the unpaired files, with what was expected where.
    """
    splits, findings = _list_splits(root, {"training": max_train_images, "validation": max_val_images})
    refuse(findings)
    return splits


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Examine all of ADE20K, as `Split.check_files` does a split."""
    splits, findings = _list_splits(folder, {})
    return findings + [finding for split in splits.values() for finding in split.check_files(deep, jobs)]


def _list_splits(root: Path, limits: dict[str, int | None]) -> tuple[dict[str, Split], list[Finding]]:
    if not root.is_dir():
        text = f"{root}: no such folder; the data of segmentation is the folder ADEChallengeData2016, unpacked from {ADDRESS}"
        return {}, [Finding("missing", text)]
    return list_splits(ADE20K, root, ADE20K.sizes, limits)
