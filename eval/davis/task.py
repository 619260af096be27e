"""DAVIS: label propagation with a backbone's features, and J&F of the masks."""

import dataclasses
import json
import logging
import time
from collections.abc import Sequence
from typing import Any

from backbones.base import check_taps
from backbones.build import build_backbone
from backbones.file import load_strictly, read_backbone_file
from backbones.spec import BackboneSpec
from common.command import parse_config
from common.files import write_text_atomically
from common.memory import peak_memory_bytes
from eval.davis.config import DavisConfig
from eval.davis.dataset import DavisSplit, VideoSequence, find_sequences
from eval.davis.features import FeatureExtractor
from eval.davis.fingerprint import fingerprint
from eval.davis.overlay import write_overlays
from eval.davis.protocol import PROTOCOL_VERSION, deviations, propagation_settings
from eval.davis.scores import score_sequences, write_csv_files
from eval.davis.sharding import Shard, joined_processes, wait_for_all
from eval.davis.summary import LOWER_IS_BETTER, Scores
from eval.davis.writing import masks_digest, write_masks
from eval.inputs import describe_inputs, finished_result, inputs_digest
from eval.provenance import describe_backbone, describe_environment
from eval.result import RESULT_FILE, Metric, Protocol, Result, read_result, write_result

logger = logging.getLogger(__name__)

TASK = "davis"
MASKS_FOLDER = "masks"
OVERLAYS_FOLDER = "overlays"
CONFIG_FILE = "config.json"

_PERCENT = 100


def check(config: DavisConfig, spec: BackboneSpec) -> None:
    """Find a user's mistakes before anything heavy starts.

    Raises:
        ValueError: If the data is not complete, or the backbone has no such block.
    """
    find_sequences(DavisSplit.from_options(config.data, config.split, config.year, config.resolution, config.sequences), True)
    if config.block is not None:
        check_taps([config.block], spec)


def evaluate(config: DavisConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun, every process propagates its share of the sequences and the first one scores.

    Raises:
        ValueError: If an option, the backbone file or the data cannot be used, or the output folder holds something else.
    """
    start = time.monotonic()
    split = DavisSplit.from_options(config.data, config.split, config.year, config.resolution, config.sequences)
    sequences = find_sequences(split, all_masks=True)
    backbone = read_backbone_file(config.backbone)
    network = build_backbone(backbone.spec)
    load_strictly(network, backbone.state_dict)
    with joined_processes() as shard:
        device = shard.device(config.device)
        extract = FeatureExtractor(network, config.block, device)
        protocol, dataset = _protocol(config, extract), fingerprint(split, sequences)
        inputs = describe_inputs(TASK, protocol, {"test": dataset}, backbone.sha256, config.seed)
        finished = finished_result(config.output, inputs)
        wait_for_all(shard)  # so that a fast process does not write a result before a slow one has looked for it
        if finished is not None:
            logger.info("%s is finished with the same inputs; not run again", config.output)
            return finished
        if shard.rank == 0:
            _write_config(config)
        logger.info("%d sequences; features %s, stride %d", len(sequences), extract.describe(), extract.stride)
        artefacts = _write_pictures(config, sequences, extract, masks_digest(backbone.sha256, dataset, config), shard)
        if shard.rank == 0:
            scores, csv_files = _score(config, split, sequences)
            result = Result(
                task=TASK,
                protocol=protocol,
                metrics=_metrics(scores),
                breakdown={name: _percent(figures) for name, figures in scores.per_object.items()},
                datasets={"test": dataset},
                backbone=describe_backbone(config.name or config.backbone.stem, backbone),
                config=dataclasses.asdict(config),
                seed=config.seed,
                environment=describe_environment(device, shard.world_size),
                wall_time_s=time.monotonic() - start,
                peak_memory_bytes=peak_memory_bytes(device),
                artefacts=artefacts | csv_files,
                inputs_sha256=inputs_digest(inputs),
            )
            write_result(config.output, result)
        wait_for_all(shard)
        return read_result(config.output / RESULT_FILE)


def main(argv: Sequence[str]) -> int:
    """`python -m eval davis`."""
    config = parse_config(DavisConfig, "python -m eval davis", argv)
    result = evaluate(config)
    if Shard.current().rank > 0:
        return 0
    figures = "  ".join(f"{name} {metric.value:.2f}" for name, metric in result.metrics.items())
    print(f"{figures}  ({result.coverage} data)  {config.output / RESULT_FILE}")  # noqa: T201 - the command's own output
    return 0


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
    return {"masks": MASKS_FOLDER, "overlays": OVERLAYS_FOLDER}


def _score(config: DavisConfig, split: DavisSplit, sequences: Sequence[VideoSequence]) -> tuple[Scores, dict[str, str]]:
    """The figures, and the names of the CSV files that hold them."""
    names = [sequence.name for sequence in sequences]
    scores = score_sequences(names, split.masks_folder, config.output / MASKS_FOLDER, config.year == "2016", config.jobs)
    overall, per_sequence = write_csv_files(config.output, config.split, scores)
    return scores, {"overall": overall.name, "per_sequence": per_sequence.name}


def _metrics(scores: Scores) -> dict[str, Metric]:
    return {
        name: Metric(value=value, higher_is_better=name not in LOWER_IS_BETTER)
        for name, value in _percent(scores.overall).items()
    }


def _percent(figures: dict[str, float]) -> dict[str, float]:
    return {name: _PERCENT * value for name, value in figures.items()}


def _write_config(config: DavisConfig) -> None:
    values: dict[str, Any] = dataclasses.asdict(config)
    write_text_atomically(config.output / CONFIG_FILE, json.dumps(values, indent=1, default=str) + "\n")
