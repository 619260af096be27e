"""One command for all tasks: what it checks before it starts, what it passes on, what it repeats."""

import json
from pathlib import Path
from typing import Any

import pytest
import timm
import torch

from backbones.build import build_backbone
from backbones.convert import convert_timm_model, open_backbone
from backbones.layouts.patchbench import FORMAT_MARK, VERSION
from backbones.spec import ViTSpec, spec_to_dict
from eval.tasks import TASKS
from tests.conftest import RunMain
from tools.eval_all import EvalAllOptions, main, split_task_options
from tools.make_sample_data import SampleConfig, draw_samples
from tools.runs import run_name, write_backbone

SPEC = ViTSpec(embed_dim=64, depth=4, num_heads=1, patch_size=16, image_size=64, class_token=False, final_norm=False)
# Small and short enough for a test: sizes and schedules only, no other code path.
SHORT = {
    "davis": "--davis.jobs 1",
    "detection": "--detection.iterations=2 --detection.batch-size=2 --detection.short-side=128 --detection.workers=0",
    "segmentation": "--segmentation.iterations=2 --segmentation.batch-size=2 --segmentation.crop=64 "
    "--segmentation.train-short-side=64 --segmentation.test-short-side=64 --segmentation.workers=0",
    "classification": "--classification.neighbours 4 8 --classification.workers 0",
}


@pytest.fixture(scope="module")
def data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("sample")
    draw_samples(SampleConfig(output=folder, train_images=4, val_images=2, frames=3, class_images=2))
    return folder


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "toy.pth"
    torch.save(build_backbone(SPEC).state_dict(), path)
    return path


def test_options_of_tasks_are_separated_and_lists_take_their_values_up_to_the_next_option() -> None:
    own, of_tasks = split_task_options(
        ["--davis.jobs", "2", "--davis.overlays", "--name", "x", "--detection.batch-size=4", "a.pth"]
    )
    assert own == ["--name", "x", "a.pth"]
    assert of_tasks["davis"] == ["--jobs", "2", "--overlays"]
    assert of_tasks["detection"] == ["--batch-size=4"]
    arguments = "a.pth --classification.classifiers knn linear --name x --detection.taps [1,2,3,4] b"
    own, of_tasks = split_task_options(arguments.split())
    assert own == ["a.pth", "--name", "x", "b"]
    assert of_tasks["classification"] == ["--classifiers", "knn", "linear"]
    assert of_tasks["detection"] == ["--taps", "[1,2,3,4]"]


def test_names_of_runs(tmp_path: Path) -> None:
    assert run_name(tmp_path / "dino_small.pth") == "dino_small"
    assert run_name(tmp_path / "my_run" / "checkpoint.pth") == "my_run"
    assert run_name(Path("timm:vit_small_patch16_224.dino")) == "vit_small_patch16_224.dino"


def options(**others: Any) -> EvalAllOptions:
    return EvalAllOptions(checkpoint=Path("a.pth"), **others)


def test_tasks_are_chosen_by_name() -> None:
    assert options().chosen_tasks() == ["davis", "detection", "segmentation"]
    assert options(sample=True).chosen_tasks() == options(tasks="all").chosen_tasks() == list(TASKS)
    assert options(tasks="classification, davis").chosen_tasks() == ["classification", "davis"]
    with pytest.raises(ValueError, match="unknown depth; tasks: davis"):
        options(tasks="davis,depth").chosen_tasks()


@pytest.mark.slow
def test_every_task_then_tables_and_nothing_twice(data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    arguments = [checkpoint, "--data", data, "--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    arguments += ["--tasks", "all", *(option for options in SHORT.values() for option in options.split())]
    finished = run_main(main, arguments)
    assert finished.status == 0, finished.stderr
    results = {task: tmp_path / "runs" / "toy" / task / "result.json" for task in TASKS}
    for task, path in results.items():
        content = json.loads(path.read_text())
        assert content["task"] == task
        assert {dataset["coverage"] for dataset in content["datasets"].values()} == {"sample"}
        named = [line for line in finished.stdout.splitlines() if line.startswith(f"{task} ")]
        assert len(named) == 2, "once with metrics, once with its file"
    assert "not a benchmark number" in finished.stdout
    main_csv = (tmp_path / "results" / "main.csv").read_text()
    assert "toy" in main_csv
    stamps = {task: path.stat().st_mtime_ns for task, path in results.items()}
    again = run_main(main, arguments)
    assert again.status == 0, again.stderr
    assert {task: path.stat().st_mtime_ns for task, path in results.items()} == stamps
    assert (tmp_path / "results" / "main.csv").read_text() == main_csv


def test_mistakes_are_found_before_any_task_starts(data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    common = ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    half = tmp_path / "half"
    half.mkdir()
    (half / "DAVIS").symlink_to(data / "DAVIS")
    bomb = tmp_path / "other.pth"
    torch.save({"generator": {"weight": torch.ones(1)}}, bomb)
    for arguments, message in (
        ([checkpoint, "--data", tmp_path / "absent"], "absent"),
        ([checkpoint, "--data", half], "half/coco"),
        ([checkpoint, "--data", data, "--detection.iteration", "3"], "iteration"),
        ([checkpoint, "--data", data, "--tasks", "davis", "--detection.iterations", "3"], "leaves out"),
        ([checkpoint, "--data", data, "--tasks", "depth"], "depth"),
        ([checkpoint, "--data", data, "--gpus", "0"], "gpus=0 must be at least 1"),
        (["--sample"], "checkpoint"),
        ([bomb, "--data", data, "--tasks", "davis"], "no known layout"),
        ([checkpoint, "--data", data, "--tasks", "davis", "--runs", "/proc/nowhere"], "/proc/nowhere"),
        ([checkpoint, "--data", data, "--detection.taps", "[0,1,2,4]"], "--detection: taps"),
        ([tmp_path / "absent.pth", "--data", tmp_path / "absent"], "no such checkpoint file"),
    ):
        finished = run_main(main, [*arguments[:1], *common, *arguments[1:]])
        assert finished.status == 2, finished
        assert len(finished.stderr.splitlines()) == 1, finished.stderr
        assert message in finished.stderr
        assert not list((tmp_path / "runs").glob("*/*/result.json"))


def test_a_failed_task_never_shows_older_metrics(data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain) -> None:
    """A result of other inputs in the run's folder was once printed as this command's."""
    arguments = [checkpoint, "--data", data, "--runs", tmp_path / "runs", "--results", tmp_path / "results", "--tasks", "davis"]
    assert run_main(main, [*arguments, "--davis.jobs", "1"]).status == 0
    other = run_main(main, [*arguments, "--davis.jobs", "1", "--davis.topk", "3"])
    assert other.status == 1
    assert "davis  failed with status 2" in other.stdout
    assert "J&F-Mean" not in other.stdout


def test_without_a_network_a_model_of_timm_is_one_line(
    data: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    def unreachable(name: str, pretrained: bool) -> None:
        raise ConnectionError(f"cannot reach the server for {name}\nsecond line")

    monkeypatch.setattr(convert_timm_model, "__defaults__", (None, unreachable))
    finished = run_main(main, ["timm:resnet50.tv_in1k", "--data", data, "--tasks", "davis", "--runs", tmp_path / "runs"])
    assert finished.status == 2
    assert finished.stderr.count("\n") == 1
    assert "cannot fetch the weights of resnet50.tv_in1k" in finished.stderr
    assert not (tmp_path / "runs").exists()


def test_a_model_of_timm_becomes_a_backbone_file_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def untrained(name: str, pretrained: bool) -> torch.nn.Module:
        torch.manual_seed(0)
        return timm.create_model(name, pretrained=False, depth=1)

    monkeypatch.setattr(convert_timm_model, "__defaults__", (None, untrained))
    source, output = Path("timm:vit_tiny_patch16_224.augreg_in21k_ft_in1k"), tmp_path / "backbone.safetensors"
    write_backbone(open_backbone(source), source, output)
    stamp = output.stat().st_mtime_ns
    write_backbone(open_backbone(source), source, output)
    assert output.stat().st_mtime_ns == stamp


def test_another_branch_of_the_same_checkpoint_needs_another_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    student, teacher = (build_backbone(SPEC).state_dict() for _ in range(2))
    checkpoint = tmp_path / "both.pth"
    networks = {
        role: {f"backbone.{name}": value for name, value in weights.items()}
        for role, weights in (("student", student), ("teacher", teacher))
    }
    torch.save(
        {"format": FORMAT_MARK, "version": VERSION, "backbone_spec": spec_to_dict(SPEC), "epoch": 1, **networks}, checkpoint
    )
    output = tmp_path / "backbone.safetensors"
    write_backbone(open_backbone(checkpoint, branch="teacher"), checkpoint, output)
    write_backbone(open_backbone(checkpoint, branch="teacher"), checkpoint, output)
    with pytest.raises(ValueError, match="another branch"):
        write_backbone(open_backbone(checkpoint, branch="student"), checkpoint, output)


def test_dry_runs_print_every_task_and_write_nothing(
    data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    common = [checkpoint, "--data", data, "--runs", tmp_path / "runs", "--tasks", "davis,classification"]
    common += SHORT["classification"].split()
    heads = run_main(main, [*common, "--num-heads", "1", "--dry-run"])
    assert heads.stdout.splitlines()[0].endswith("backbone.safetensors --num-heads 1")
    here = run_main(main, [*common, "--gpus", "3", "--dry-run"])
    assert here.status == 0, here.stderr
    conversion, davis, classification, tables = here.stdout.splitlines()
    assert conversion == f"# before: python tools/convert_checkpoint.py {checkpoint} {tmp_path}/runs/toy/backbone.safetensors"
    assert davis.startswith(f"python -m eval davis --backbone {tmp_path}/runs/toy/backbone.safetensors")
    assert davis.endswith("--gpus 3")
    assert "--classifiers knn" in classification
    assert tables == f"# when they have ended: python -m tables --runs {tmp_path}/runs --output results"
    jobs = run_main(main, ["--slurm", "--dry-run", "--gpus", "2", "--sbatch", "account=x", "qos=low", "--hours", "3", *common])
    assert jobs.status == 0, jobs.stderr
    assert jobs.stdout.count("#SBATCH --account=x") == jobs.stdout.count("#SBATCH --qos=low") == 2
    assert jobs.stdout.count("#SBATCH --time=180") == 2
    assert "# each of 2 processes: python -m eval davis --backbone" in jobs.stdout
    assert not (tmp_path / "runs").exists()


def test_without_slurm_submitting_is_one_line(
    data: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    finished = run_main(main, [checkpoint, "--data", data, "--runs", tmp_path / "runs", "--tasks", "davis", "--slurm"])
    assert finished.status == 2
    assert "no `srun`" in finished.stderr
