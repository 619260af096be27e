"""`python -m eval.davis.propagation`: the masks that label propagation gives, without scores."""

import logging
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from backbones.file import load_backbone
from common.command import parse_config, run_command
from common.files import file_sha256
from eval.davis.dataset import DavisSplit, find_sequences
from eval.davis.features import FeatureExtractor, check_sizes
from eval.davis.fingerprint import fingerprint
from eval.davis.protocol import PropagationSettings
from eval.davis.sharding import joined_processes
from eval.davis.writing import masks_digest, write_masks

logger = logging.getLogger(__name__)


@dataclass(frozen=True, kw_only=True)
class PropagationConfig(PropagationSettings):
    """Write the masks that label propagation with a backbone gives for the sequences of a DAVIS folder."""

    backbone: Path
    """Backbone file."""
    davis: Path
    """DAVIS folder: ImageSets, JPEGImages, Annotations (the first frames' masks suffice)."""
    output: Path
    """Folder for the masks: SEQUENCE/FRAME.png."""
    split: str = "val"
    """List in ImageSets; `all`: every folder of frames."""
    year: Literal["2016", "2017"] = "2017"
    """2016: all objects count as one."""
    resolution: str = "480p"
    """Folder below JPEGImages and Annotations; `.` where sequences lie directly in them."""
    sequences: str = ""
    """Only these sequences of the split, separated by commas."""
    device: str = "auto"
    """`cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one."""


def propagate(config: PropagationConfig) -> Path:
    """Write the masks of all chosen sequences; returns their folder.

    Raises:
        ValueError: If the data, the backbone file or the output folder cannot be used; one line names what.
    """
    split = DavisSplit.from_options(config.davis, config.split, config.year, config.resolution, config.sequences)
    sequences = find_sequences(split, all_masks=False)
    backbone = load_backbone(config.backbone)
    check_sizes(backbone.spec, (sequence.size for sequence in sequences), config)
    inputs = masks_digest(file_sha256(config.backbone), fingerprint(split, sequences), sequences, config)
    with joined_processes() as shard:
        extract = FeatureExtractor(backbone, config.block, shard.device(config.device))
        logger.info("%d sequences; features %s, stride %d", len(sequences), extract.describe(), extract.stride)
        write_masks(sequences, config.output, extract, config, inputs, shard)
    return config.output


def main(argv: Sequence[str]) -> int:
    """Parse, propagate."""
    propagate(parse_config(PropagationConfig, "python -m eval.davis.propagation", argv))
    return 0


if __name__ == "__main__":
    run_command(main)
