"""Classification: features of frozen images, weighted k-NN and a linear probe."""

import time
from collections.abc import Sequence

from backbones.build import build_backbone
from backbones.file import load_strictly, read_backbone_file
from backbones.spec import BackboneSpec
from common.command import parse_config
from common.memory import peak_memory_bytes
from eval.classification.classifiers import PROBE_FILE, run_knn, run_probe
from eval.classification.config import ClassificationConfig
from eval.classification.datasets import read_splits
from eval.classification.features import extract_features
from eval.classification.images import Splits
from eval.classification.linear import ProbeOutcome
from eval.classification.protocol import protocol_of
from eval.classification.report import breakdown_of, metrics_of, named_ranks, write_predictions
from eval.classification.representation import FeatureExtractor, choose_representation
from eval.classification.scores import Ranks
from eval.evaluation import Evaluation, Figures, figures_line
from eval.inputs import inputs_digest
from eval.processes import Process, joined, wait_for_all
from eval.result import RESULT_FILE, Result, read_result, write_result

TASK = "classification"


def check(config: ClassificationConfig, spec: BackboneSpec) -> Splits:
    """Find a user's mistakes before anything heavy starts, and list the data.

    Raises:
        ValueError: If the data cannot be used, or the options do not fit them or the backbone.
    """
    choose_representation(spec, config.linear_blocks, config.linear_mean_patch)
    stride = getattr(spec, "patch_size", 1)
    if config.crop % stride:
        raise ValueError(f"crop={config.crop} is not a multiple of the backbone's patch size {stride}")
    splits = read_splits(config.data, config.train_folder, config.test_folder, config.classes)
    if "knn" in config.classifiers and max(config.neighbours) > len(splits.train):
        raise ValueError(
            f"neighbours={config.neighbours}: {config.data} has {len(splits.train)} training images; leave the larger numbers out"
        )
    if len(splits.train.classes) < 2:
        raise ValueError(f"{config.data}: one class only; there is nothing to classify")
    return splits


def evaluate(config: ClassificationConfig) -> Result:
    """Run the task, or what is left of it; a finished task with the same inputs is only read.

    Under torchrun every process extracts a share of the features, finds a share of the neighbours and makes a part of every batch of
    the probe; the outcome does not depend on their number.

    Raises:
        ValueError: If an option, the backbone file or the data cannot be used, or the output folder holds something else.
    """
    start = time.monotonic()
    backbone = read_backbone_file(config.backbone)
    splits = check(config, backbone.spec)
    network = build_backbone(backbone.spec)
    load_strictly(network, backbone.state_dict)
    with joined(Process.current()) as process:
        device = process.device(config.device)
        evaluation = Evaluation(
            task=TASK,
            options=config,
            backbone=backbone,
            protocol=protocol_of(config, backbone.spec),
            datasets={"train": splits.train.fingerprint, "test": splits.test.fingerprint},
        )
        finished = evaluation.finished()
        wait_for_all(process)  # so that a fast process does not write a result before a slow one has looked for it
        if finished is not None:
            return finished
        if process.rank == 0:
            evaluation.write_config()
        representation = choose_representation(backbone.spec, config.linear_blocks, config.linear_mean_patch)
        extractor = FeatureExtractor(network, representation, device)
        digest = inputs_digest(evaluation.inputs)
        named, probe = _classify(config, splits, backbone.sha256, extractor, process, digest)
        if process.rank == 0:
            predictions = write_predictions(config.output, named, splits.test)
            figures = Figures(
                metrics=metrics_of(named, probe, len(splits.test.classes), config.seed),
                breakdown=breakdown_of(named, splits.test),
                artefacts={"predictions": predictions.name} | ({} if probe is None else {"probe": PROBE_FILE}),
            )
            seconds = time.monotonic() - start
            record = evaluation.record(figures, device, process.world_size, seconds, peak_memory_bytes(device))
            write_result(config.output, record)
        wait_for_all(process)
        return read_result(config.output / RESULT_FILE)


def parse(argv: Sequence[str]) -> ClassificationConfig:
    """The options of `python -m eval classification`."""
    return parse_config(ClassificationConfig, "python -m eval classification", argv)


def main(argv: Sequence[str]) -> int:
    """`python -m eval classification`."""
    config = parse(argv)
    result = evaluate(config)
    if Process.current().rank > 0:
        return 0
    print(figures_line(config, result))  # noqa: T201 - the command's own output
    return 0


def _classify(
    config: ClassificationConfig,
    splits: Splits,
    backbone_sha256: str,
    extractor: FeatureExtractor,
    process: Process,
    digest: str,
) -> tuple[dict[str, Ranks], ProbeOutcome | None]:
    """Every classifier's ranks by its name, and the probe's outcome if there is one."""
    features = extract_features(config, splits, backbone_sha256, extractor, process)
    knn = run_knn(config, splits, features, extractor.device, process) if "knn" in config.classifiers else {}
    linear = "linear" in config.classifiers
    probe = run_probe(config, splits, features, extractor, process, digest) if linear else None
    return named_ranks(knn, probe, config), probe
