"""Copydays: original images, and blocks of the same images after one kind of change.

copydays/original/*.jpg
copydays/strong/*.jpg                       made by hand; an original's name begins with the same four characters
copydays/{crops,jpegqual}/STRENGTH/*.jpg    one for each original, in the order of the names; these blocks may be absent

Loads no torch.
"""

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path

from eval.copy_detection import TASK
from eval.findings import Finding, about, refuse
from eval.image_checks import by_opencv, damage_findings, list_images, look_at_all
from eval.record import describe_dataset
from eval.result import Dataset

ORIGINAL, STRONG = "original", "strong"
SIZES = {ORIGINAL: 157, STRONG: 229}
FURTHER_BLOCKS = (
    *(f"jpegqual/{quality}" for quality in (3, 5, 8, 10, 15, 20, 30, 50, 75)),
    *(f"crops/{percent}" for percent in (10, 15, 20, 30, 40, 50, 60, 70, 80)),
)
SAME_CHARACTERS = 4  # of names, by which a strong change belongs to its original

_ADDRESSES = {Path(download.brings).name: download.address for download in TASK.downloads}


@dataclass(frozen=True, kw_only=True)
class Copydays:
    """The images of each block, in the order of their names."""

    root: Path
    blocks: Mapping[str, tuple[Path, ...]]

    def positives(self) -> dict[str, list[list[int]]]:
        """For each query of each block, the places of its originals."""
        originals = self.blocks[ORIGINAL]
        found = {block: [[place] for place in range(len(paths))] for block, paths in self.blocks.items()}
        found[STRONG] = [
            [place for place, original in enumerate(originals) if _key(original) == _key(query)]
            for query in self.blocks[STRONG]
        ]
        return found

    def describe(self) -> Dataset:
        """The fingerprint: the strong block, and a digest of the other ones."""
        sizes = {block: [f"{path.name} {path.stat().st_size}" for path in paths] for block, paths in self.blocks.items()}
        restricted = len(self.blocks[ORIGINAL]) != SIZES[ORIGINAL]
        return describe_dataset(self.root, "Copydays", STRONG, sizes[STRONG], SIZES[STRONG], restricted, str(sizes))

    def check_files(self, deep: bool = False, jobs: int = 0) -> list[Finding]:
        paths = [path for block in self.blocks.values() for path in block]
        return damage_findings(look_at_all(paths, jobs, "Copydays", by_opencv if deep else None), self.root, "get them again")


def check_data(root: Path) -> Copydays:
    """ValueError names everything that is missing, damaged or does not fit the originals."""
    found, findings = read_blocks(root)
    refuse(findings)
    assert found is not None
    refuse(found.check_files())
    return found


def examine(folder: Path, deep: bool, jobs: int) -> list[Finding]:
    """Everything that is wrong with the set."""
    found, findings = read_blocks(folder)
    return findings + (found.check_files(deep, jobs) if found else [])


def read_blocks(root: Path) -> tuple[Copydays | None, list[Finding]]:
    """The set, and what is wrong with it; None where an original or strong block is not there."""
    findings: list[Finding] = []
    blocks: dict[str, tuple[Path, ...]] = {}
    for block in (ORIGINAL, STRONG, *FURTHER_BLOCKS):
        images, more = list_images(root / block, ".jpg", root)
        findings += more
        if images:
            blocks[block] = tuple(sorted(images.values(), key=lambda path: path.name))
    if missing := [block for block in SIZES if block not in blocks]:
        text = f"{root} has no {' and no '.join(f'{block}/*.jpg' for block in missing)}; the data is the folder of Copydays"
        advice = " and ".join(f"unpack {_ADDRESSES[block]} in {block}" for block in missing)
        return None, [*findings, Finding("missing", text, advice=advice)]
    originals = blocks[ORIGINAL]
    keys = {_key(path) for path in originals}
    strays = [f"{STRONG}/{path.name}" for path in blocks[STRONG] if _key(path) not in keys]
    text = f"no original's name begins with the same {SAME_CHARACTERS} characters as that of changed images"
    findings += about("wrong", text, strays, "the originals are of another set, or some are missing")
    for block in (block for block in FURTHER_BLOCKS if block in blocks):
        found = {_key(path) for path in blocks[block]}
        lacking = tuple(path.name for path in originals if _key(path) not in found)
        if lacking or len(blocks[block]) != len(originals):
            count = f"one image for each of the {len(originals)} originals, and has {len(blocks[block])}"
            text = f"{root / block} must have {count}" + (", without" if lacking else "")
            findings.append(Finding("wrong", text, lacking, f"get {_ADDRESSES[block.split('/')[0]]}"))
    absent = tuple(block for block in FURTHER_BLOCKS if block not in blocks)
    findings += about("note", "blocks are absent, so that there are no metrics of", absent)
    for block, full in SIZES.items():
        if len(blocks[block]) != full:
            findings.append(Finding("subset", f"{block}: {len(blocks[block])} of {full} images"))
    return Copydays(root=root, blocks=blocks), findings


def _key(path: Path) -> str:
    return path.name[:SAME_CHARACTERS]
