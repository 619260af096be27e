"""DAVIS: label propagation with a backbone's features, and J&F of the masks."""

import logging
import time
from collections.abc import Sequence
from dataclasses import replace

from backbones.build import build_backbone
from backbones.file import load_strictly, read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import choose_device, peak_memory_bytes, process_group, rank, wait_for_all, world_size
from eval.davis.config import DavisConfig
from eval.davis.data import DavisSplit, VideoSequence, find_sequences, fingerprint
from eval.davis.features import FeatureExtractor, check_sizes
from eval.davis.protocol import PROTOCOL_VERSION, deviations, propagation_settings
from eval.davis.scores import LOWER_IS_BETTER, Scores, score_sequences, write_csv_files
from eval.davis.writing import masks_digest, write_masks, write_overlays
from eval.record import Evaluation
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
    device = choose_device(config.device)
    with process_group(device, "gloo"):
        extract = FeatureExtractor(network, config.block, device)
        dataset = fingerprint(split, sequences)
        evaluation = Evaluation(
            task=TASK, options=config, backbone=backbone, protocol=_protocol(config, extract), datasets={"test": dataset}
        )
        finished = evaluation.finished()
        wait_for_all()  # so that a fast process does not write a result before a slow one has looked for it
        if finished is not None and (not config.overlays or OVERLAYS_FOLDER in finished.artefacts):
            return finished
        if rank() == 0 and finished is None:
            evaluation.write_config()
        logger.info("%d sequences; features %s, stride %d", len(sequences), extract.describe(), extract.stride)
        masks = config.output / MASKS_FOLDER
        write_masks(sequences, masks, extract, config, masks_digest(backbone.sha256, dataset, sequences, config))
        artefacts = {"masks": MASKS_FOLDER}
        if config.overlays:
            write_overlays(sequences, masks, config.output / OVERLAYS_FOLDER)
            artefacts["overlays"] = OVERLAYS_FOLDER
        if rank() == 0:
            if finished is None:
                scores, files = _score(config, split, sequences)
                metrics = {
                    name: Metric(value=value, higher_is_better=name not in LOWER_IS_BETTER)
                    for name, value in _percent(scores.overall).items()
                }
                breakdown = {name: _percent(values) for name, values in scores.per_object.items()}
                seconds = time.monotonic() - start
                measured = (device, world_size(), seconds, peak_memory_bytes(device))
                record = evaluation.record(metrics, breakdown, {**artefacts, **files}, *measured)
            else:
                record = replace(finished, artefacts={**finished.artefacts, **artefacts})
            write_result(config.output, record)
        wait_for_all()
        return read_result(config.output / RESULT_FILE)


def _find(config: DavisConfig, spec: BackboneSpec) -> tuple[DavisSplit, list[VideoSequence]]:
    split = DavisSplit.chosen(config.data, config, config.sequences)
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


def _score(config: DavisConfig, split: DavisSplit, sequences: Sequence[VideoSequence]) -> tuple[Scores, dict[str, str]]:
    """The scores, and the artefacts that hold them: the CSV files of the official evaluation."""
    names = [sequence.name for sequence in sequences]
    scores = score_sequences(names, split.masks_folder, config.output / MASKS_FOLDER, config.year == "2016", config.jobs)
    overall, per_sequence = write_csv_files(config.output, config.split, scores)
    return scores, {"overall": overall.name, "per_sequence": per_sequence.name}


def _percent(fractions: dict[str, float]) -> dict[str, float]:
    return {name: _PERCENT * value for name, value in fractions.items()}
