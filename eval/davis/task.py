"""DAVIS: label propagation with a backbone's features, and J&F of the masks."""

import time
from collections.abc import Sequence
from dataclasses import replace
from functools import partial

import torch

from backbones.build import network_of
from backbones.file import read_backbone_file
from backbones.spec import BackboneSpec
from common.distributed import choose_device, process_group
from eval.davis.config import DavisConfig
from eval.davis.data import DavisSplit, find_sequences, fingerprint
from eval.davis.scores import write_csv_files
from eval.davis.sets import SETS
from eval.propagation.features import FeatureExtractor, check_sizes
from eval.propagation.measures import LOWER_IS_BETTER, score_sequences
from eval.propagation.protocol import OF_DINO, VERSIONS, deviations, propagation_settings
from eval.propagation.videos import VideoSequence
from eval.propagation.writing import run_propagation, write_masks, write_overlays, write_zip
from eval.record import Evaluation, unpublished
from eval.registry import Benchmark
from eval.result import Metric, Protocol, Result
from eval.tasks import BENCHMARKS

MASKS_FOLDER = "masks"
SUBMISSION = "submission.zip"


def check(config: DavisConfig, spec: BackboneSpec) -> None:
    """Find a user's mistakes before anything heavy starts."""
    _find(config, spec)


def evaluate(config: DavisConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun, every process propagates its share of the sequences and the first one scores.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    split, sequences = _find(config, backbone.spec)
    network = network_of(backbone.spec, backbone.state_dict)
    device = choose_device(config.device)
    with process_group(device, "gloo"):
        extract = FeatureExtractor(network, config.block, device)
        dataset = fingerprint(split, sequences)
        protocol = Protocol(
            name=_benchmark(config).protocol,
            version=VERSIONS[config.protocol],
            settings={**propagation_settings(config), "features": extract.describe(), "stride": extract.stride},
            deviations=deviations(config) | unpublished(backbone.spec),
        )
        evaluation = Evaluation(task="davis", options=config, backbone=backbone, protocol=protocol, datasets={"test": dataset})
        masks = config.output / MASKS_FOLDER

        def score() -> Result:
            if all(sequence.fully_annotated for sequence in sequences):
                names = [sequence.name for sequence in sequences]
                return _scored(evaluation, names, split, device, start)
            server = SETS[config.dataset]
            write_zip(sequences, masks, config.output / SUBMISSION, server.zip_folder)
            withheld = f"masks of {split.title}, {dataset.split}, are withheld"
            note = f"no figures: {withheld}; submit {SUBMISSION} to {server.server}"
            return replace(evaluation.record({}, {}, {"submission": SUBMISSION}, device, start), note=note)

        propagate = partial(write_masks, sequences, masks, extract, config, backbone.sha256, dataset)
        return run_propagation(evaluation, {"masks": MASKS_FOLDER}, propagate, partial(write_overlays, sequences, masks), score)


def _benchmark(config: DavisConfig) -> Benchmark:
    key = "davis" if config.year == "2017" else "davis_2016"
    if config.dataset != "davis":
        key = "vos"
    return BENCHMARKS[key if config.protocol in OF_DINO else f"{key}_{config.protocol}"]


def _scored(evaluation: Evaluation, names: Sequence[str], split: DavisSplit, device: torch.device, start: float) -> Result:
    """The result of the masks in the output folder."""
    config = evaluation.options
    masks = config.output / MASKS_FOLDER
    begin_later = split.dataset != "davis"
    scores = score_sequences(names, split.masks_folder, masks, config.year == "2016", config.jobs, begin_later)
    overall, per_sequence = write_csv_files(config.output, config.split, scores)
    artefacts = {"overall": overall.name, "per_sequence": per_sequence.name}
    percent = _percent(scores.overall)
    metrics = {name: Metric(value=percent[name], higher_is_better=name not in LOWER_IS_BETTER) for name in percent}
    breakdown = {name: _percent(values) for name, values in scores.per_object.items()}
    return evaluation.record(metrics, breakdown, artefacts, device, start)


def _find(config: DavisConfig, spec: BackboneSpec) -> tuple[DavisSplit, list[VideoSequence]]:
    split = DavisSplit.chosen(config.data, config, config.sequences)
    sequences = find_sequences(split, all_masks=True)
    check_sizes(spec, (sequence.size for sequence in sequences), config)
    return split, sequences


def _percent(fractions: dict[str, float]) -> dict[str, float]:
    return {name: 100 * value for name, value in fractions.items()}
