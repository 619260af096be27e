"""Is this machine's GPU set up right, and how fast is it? What has to be correct comes first, then speed, then rarer options.

Weights and images are drawn: nothing but this repository is needed.
"""

from collections.abc import Sequence
from typing import Any

from benchmarks.gpu_run import TABLE, GPUConfig, Part, run_parts
from common.cli import parse, run_command
from common.files import lock_folder
from eval.tasks import TASKS
from pretrain.methods import METHODS


def _check(name: str, seconds: int, function: str, *arguments: Any) -> Part:
    return Part(name, "correct", seconds, f"benchmarks.gpu_checks:{function}", arguments)


def _speed(name: str, seconds: int, function: str, *arguments: Any) -> Part:
    return Part(name, "fast", seconds, f"benchmarks.gpu_speed:{function}", arguments)


FINE_TUNING = [name for name, task in TASKS.items() if task.fine_tunes]
_TASKS = sorted(TASKS, key=lambda name: name not in ("davis", "classification", *FINE_TUNING))  # the paper's come first
PARTS = (
    Part("machine", "set-up", 20, "benchmarks.gpu_checks:machine"),
    Part("sample data", "set-up", 15, "benchmarks.gpu_checks:sample_data"),
    _check("no synchronisation in propagation", 8, "no_synchronisation"),
    _check("k-NN ranks", 2, "ranks"),
    *(_check(name, 10 if name in FINE_TUNING else 4, "task", name) for name in _TASKS),
    *(_check(f"pretraining, {method}", 2, "pretraining", method) for method in METHODS),
    _check("pretraining, resumed", 6, "resume"),
    _check("one process group: NCCL, SyncBN", 5, "one_process_group"),
    _check("detection, ResNet: precise batch norm", 14, "task", "detection", "resnet"),
    _check("frozen features in bfloat16", 2, "autocast"),
    *(_check(f"{name} in bfloat16", 8, "half_precision", name) for name in FINE_TUNING),
    _speed("SelfPatch step", 25, "pretraining_step", False),
    *(_speed(f"DAVIS, ViT-S/{patch}", 25, "propagation", patch) for patch in (16, 8)),
    *(_speed(f"{name} step", 30, "fine_tuning_step", name) for name in FINE_TUNING),
    _speed("SelfPatch step, compiled", 80, "pretraining_step", True),
    _speed("dense retrieval", 30, "probe", "measure_retrieval"),
    _speed("linear probe", 12, "probe", "measure_linear_probe"),
    _speed("k-NN search", 12, "probe", "measure_knn"),
    _speed("views", 10, "views"),
    *(_check(f"compiled: pretraining, {method}", 15, "compiled_pretraining", method) for method in METHODS),
    *(_check(f"compiled: {name}", 25, "compiled_task", name) for name in FINE_TUNING),
)


def chosen(words: Sequence[str]) -> list[Part]:
    """The parts whose names contain one of the words, and those that all need."""
    for word in words:
        if not any(word in part.name for part in PARTS):
            raise ValueError(f"--parts {word}: no part's name contains it; parts: {'; '.join(part.name for part in PARTS)}")
    return [part for part in PARTS if not words or part.kind == "set-up" or any(word in part.name for word in words)]


def main(argv: Sequence[str], parts: Sequence[Part] = ()) -> int:
    """Run the parts, by default those that `--parts` names; 0 if everything that has to be correct is."""
    config = parse(GPUConfig, argv, "python -m benchmarks.gpu")
    parts = parts or chosen(config.parts)
    if config.device == "cuda":
        import torch

        if not torch.cuda.is_available():
            raise ValueError(
                "--device cuda: torch sees no GPU here; see `nvidia-smi`, or try the parts with --device cpu --tiny"
            )
    config.output.mkdir(parents=True, exist_ok=True)
    with lock_folder(config.output):
        outcomes = run_parts(parts, config)
    wrong = [outcome["part"] for outcome in outcomes if outcome["kind"] != "fast" and outcome["status"] != "passed"]
    print(f"{config.output / TABLE}: {len(outcomes)} parts; not shown to be correct: {', '.join(wrong) or 'none'}")
    return 1 if wrong else 0


if __name__ == "__main__":
    run_command(main)
