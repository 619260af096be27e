"""DAVIS: label propagation with a backbone's features, and J&F of the masks."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from backbones.build import build_backbone
from backbones.file import load_strictly, read_backbone_file
from backbones.spec import BackboneSpec
from common.command import parse_config
from common.memory import peak_memory_bytes
from eval.davis.config import DavisConfig
from eval.davis.dataset import DavisSplit, VideoSequence, find_sequences
from eval.davis.features import FeatureExtractor, check_sizes
from eval.davis.fingerprint import fingerprint
from eval.davis.overlay import write_overlays
from eval.davis.protocol import PROTOCOL_VERSION, deviations, propagation_settings
from eval.davis.scores import score_sequences, write_csv_files
from eval.davis.sharding import Shard, joined_processes, wait_for_all
from eval.davis.summary import LOWER_IS_BETTER, Scores
from eval.davis.writing import masks_digest, write_masks
from eval.evaluation import Evaluation, Figures, figures_line
from eval.result import RESULT_FILE, Metric, Protocol, Result, read_result, write_result

logger = logging.getLogger(__name__)

TASK = "davis"
MASKS_FOLDER = "masks"
OVERLAYS_FOLDER = "overlays"

_PERCENT = 100


def check(config: DavisConfig, spec: BackboneSpec) -> None:
    """Find a user's mistakes before anything heavy starts.

    Raises:
        ValueError: If the data is not complete, does not fit the backbone, or the backbone has no such block.
    """
    _find(config, spec)


def evaluate(config: DavisConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun, every process propagates its share of the sequences and the first one scores.

    Raises:
        ValueError: If an option, the backbone file or the data cannot be used, or the output folder holds something else.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    split, sequences = _find(config, backbone.spec)
    network = build_backbone(backbone.spec)
    load_strictly(network, backbone.state_dict)
    with joined_processes() as shard:
        device = shard.device(config.device)
        extract = FeatureExtractor(network, config.block, device)
        dataset = fingerprint(split, sequences)
        evaluation = Evaluation(
            task=TASK, options=config, backbone=backbone, protocol=_protocol(config, extract), datasets={"test": dataset}
        )
        finished = evaluation.finished()
        wait_for_all(shard)  # so that a fast process does not write a result before a slow one has looked for it
        if finished is not None and (not config.overlays or OVERLAYS_FOLDER in finished.artefacts):
            return finished
        if shard.rank == 0 and finished is None:
            evaluation.write_config()
        logger.info("%d sequences; features %s, stride %d", len(sequences), extract.describe(), extract.stride)
        artefacts = _write_pictures(
            config, sequences, extract, masks_digest(backbone.sha256, dataset, sequences, config), shard
        )
        if shard.rank == 0:
            if finished is None:
                figures = _score(config, split, sequences, artefacts)
                seconds = time.monotonic() - start
                record = evaluation.record(figures, device, shard.world_size, seconds, peak_memory_bytes(device))
            else:
                record = replace(finished, artefacts={**finished.artefacts, **artefacts})
            write_result(config.output, record)
        wait_for_all(shard)
        return read_result(config.output / RESULT_FILE)


def parse(argv: Sequence[str]) -> DavisConfig:
    """The options of `python -m eval davis`."""
    return parse_config(DavisConfig, "python -m eval davis", argv)


def main(argv: Sequence[str]) -> int:
    """`python -m eval davis`."""
    config = parse(argv)
    result = evaluate(config)
    if Shard.current().rank > 0:
        return 0
    print(figures_line(config, result))  # noqa: T201 - the command's own output
    return 0


def _find(config: DavisConfig, spec: BackboneSpec) -> tuple[DavisSplit, list[VideoSequence]]:
    split = DavisSplit.from_options(config.data, config.split, config.year, config.resolution, config.sequences)
    sequences = find_sequences(split, all_masks=True)
    check_sizes(spec, (sequence.size for sequence in sequences), config)
    return split, sequences


def _protocol(config: DavisConfig, extract: FeatureExtractor) -> Protocol:
    settings = {**propagation_settings(config), "features": extract.describe(), "stride": extract.stride}
    return Protocol(
        name=f"davis-{config.year}-label-propagation",
        version=PROTOCOL_VERSION,
        settings=settings,
        deviations=deviations(config),
    )


def _write_pictures(
    config: DavisConfig, sequences: Sequence[VideoSequence], extract: FeatureExtractor, inputs: str, shard: Shard
) -> dict[str, str]:
    """Masks, and overlays where wanted; their folders by name."""
    masks = config.output / MASKS_FOLDER
    write_masks(sequences, masks, extract, config, inputs, shard)
    if not config.overlays:
        return {"masks": MASKS_FOLDER}
    for sequence in shard.share(sequences):
        write_overlays(sequence, masks / sequence.name, config.output / OVERLAYS_FOLDER / sequence.name)
    wait_for_all(shard)
    return {"masks": MASKS_FOLDER, "overlays": OVERLAYS_FOLDER}


def _score(config: DavisConfig, split: DavisSplit, sequences: Sequence[VideoSequence], artefacts: dict[str, str]) -> Figures:
    """The figures, and the CSV files that hold them beside the other artefacts."""
    names = [sequence.name for sequence in sequences]
    scores = score_sequences(names, split.masks_folder, config.output / MASKS_FOLDER, config.year == "2016", config.jobs)
    overall, per_sequence = write_csv_files(config.output, config.split, scores)
    return Figures(
        metrics=_metrics(scores),
        breakdown={name: _percent(figures) for name, figures in scores.per_object.items()},
        artefacts={**artefacts, "overall": overall.name, "per_sequence": per_sequence.name},
    )


def _metrics(scores: Scores) -> dict[str, Metric]:
    return {
        name: Metric(value=value, higher_is_better=name not in LOWER_IS_BETTER)
        for name, value in _percent(scores.overall).items()
    }


def _percent(figures: dict[str, float]) -> dict[str, float]:
    return {name: _PERCENT * value for name, value in figures.items()}
