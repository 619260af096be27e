"""`python -m eval.davis.propagation`: the masks that label propagation gives, without scores."""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from common.cli import parse, run_command
from eval.davis.config import SequenceOptions
from eval.propagation.protocol import PropagationSettings


@dataclass(frozen=True, kw_only=True)
class PropagationConfig(SequenceOptions, PropagationSettings):
    """Write the masks that label propagation with a backbone gives for the sequences of a DAVIS folder."""

    backbone: Path  # Backbone file.
    davis: Path  # DAVIS folder: ImageSets, JPEGImages, Annotations (the first frames' masks suffice).
    output: Path  # Folder for the masks: SEQUENCE/FRAME.png.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.


def propagate(config: PropagationConfig) -> Path:
    """Write the masks of all chosen sequences; returns their folder."""
    # They load torch, which `--help` does not need.
    from backbones.build import network_of
    from backbones.file import read_backbone_file
    from common.distributed import choose_device, hold_folder, process_group
    from eval.davis.data import DavisSplit, find_sequences, fingerprint
    from eval.propagation.features import FeatureExtractor, check_sizes
    from eval.propagation.writing import write_masks

    split = DavisSplit.chosen(config.davis, config, config.sequences)
    sequences = find_sequences(split, all_masks=False)
    backbone = read_backbone_file(config.backbone)
    check_sizes(backbone.spec, (sequence.size for sequence in sequences), config)
    device = choose_device(config.device)
    with process_group(device, "gloo"), hold_folder(config.output):
        extract = FeatureExtractor(network_of(backbone.spec, backbone.state_dict), config.block, device)
        write_masks(sequences, config.output, extract, config, backbone.sha256, fingerprint(split, sequences))
    return config.output


def main(argv: Sequence[str]) -> int:
    propagate(parse(PropagationConfig, argv, "python -m eval.davis.propagation"))
    return 0


if __name__ == "__main__":
    run_command(main)
