"""The command for all tasks: what it checks first, what it passes on, what it does not repeat, and its closing summary."""

import contextlib
import dataclasses
import json
import os
from collections.abc import Sequence
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import torch

from backbones.build import build_backbone
from backbones.convert import Selection, open_backbone
from backbones.file import read_backbone_file
from backbones.layouts.patchbench import FORMAT_MARK, VERSION
from backbones.spec import spec_to_dict
from common.launch import LaunchOptions
from eval.__main__ import main as evaluate
from eval.result import write_result
from eval.tasks import TASKS, named_tasks, optional_tasks
from tables.make import TablesConfig, make_tables
from tests.commands import SPEC, every_task
from tests.conftest import RunMain
from tests.tables.conftest import make_result
from tools.eval_all import EvalAllOptions, main, run_name, split_task_options
from tools.evaluation import arguments_for, data_folders
from tools.runs import local_processes, write_backbone
from tools.summary import summary


@pytest.fixture(scope="module")
def checkpoint(tmp_path_factory: pytest.TempPathFactory) -> Path:
    torch.manual_seed(0)
    path = tmp_path_factory.mktemp("checkpoint") / "toy.pth"
    torch.save(build_backbone(SPEC).state_dict(), path)
    return path


@pytest.mark.parametrize(
    ("given", "own", "task", "of_task"),
    [
        ("--davis.jobs 2 --davis.overlays --name x a.pth", "--name x a.pth", "davis", "--jobs 2 --overlays"),
        ("--detection.batch-size=4 a.pth", "a.pth", "detection", "--batch-size=4"),
        ("a.pth --classification.neighbours 4 8 --name x", "a.pth --name x", "classification", "--neighbours 4 8"),
    ],
)
def test_options_of_tasks_are_separated_and_lists_take_all_their_values(given: str, own: str, task: str, of_task: str) -> None:
    assert split_task_options(given.split()) == (own.split(), {name: [] for name in TASKS} | {task: of_task.split()})


def test_names_of_runs_and_tasks(tmp_path: Path) -> None:
    checkpoints = (tmp_path / "dino_small.pth", tmp_path / "my_run" / "checkpoint.pth", Path("timm:vit_small_patch16_224.dino"))
    assert [run_name(path) for path in checkpoints] == ["dino_small", "my_run", "vit_small_patch16_224.dino"]

    def chosen(**options: Any) -> list[str]:
        return EvalAllOptions(checkpoint=Path("a.pth"), **options).chosen_tasks()

    assert chosen() == ["davis", "detection", "segmentation"]
    assert chosen(sample=True) == chosen(tasks="all") == list(TASKS)
    assert chosen(tasks="classification, davis") == ["classification", "davis"]
    frozen = ["classification", "linear_segmentation", "retrieval_segmentation", "davis"]
    assert chosen(tasks="frozen") == frozen
    assert chosen(tasks="depth,frozen,davis") == ["depth", *frozen]


def run_here(task: str, arguments: Sequence[str]) -> int:
    """A task in this process, so that nothing waits for imports."""
    with open(os.devnull, "w") as nowhere, contextlib.redirect_stdout(nowhere):
        return evaluate([task, *arguments])


def test_every_task_then_tables_and_nothing_twice(
    small_samples: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    paths = {task: tmp_path / "runs/toy" / task / "result.json" for task in TASKS}
    again = every_task(small_samples, tmp_path, ["davis"], checkpoint)
    with monkeypatch.context() as patch:
        patch.setattr("tools.eval_all._run", run_here)
        shown = run_main(main, every_task(small_samples, tmp_path, checkpoint=checkpoint)).output()
        for task in TASKS:
            content = json.loads(paths[task].read_text())
            assert content["task"] == task
            assert {dataset["coverage"] for dataset in content["datasets"].values()} == {"sample"}
            named = [line for line in shown.splitlines() if line.startswith(f"{task} ")]
            assert len(named) == 1, "with its time and its file"
        main_csv = (tmp_path / "results/main.csv").read_text()
        assert "toy" in main_csv
        stamps = {task: path.stat().st_mtime_ns for task, path in paths.items()}
        assert "DAVIS-2017 (J&F)m" in run_main(main, again).output().splitlines()[0]
        assert (tmp_path / "results/main.csv").read_text() == main_csv
    # In a process of its own. A result of other inputs in the run's folder was once printed as this command's.
    other = run_main(main, [*again, "--davis.topk", "3"])
    assert other.status == 1
    assert "davis  failed with status 2" in other.stdout
    assert "(J&F)m" not in other.stdout
    assert {task: path.stat().st_mtime_ns for task, path in paths.items()} == stamps


def test_why_there_are_no_tables_is_said(
    small_samples: Path,
    checkpoint: Path,
    tmp_path: Path,
    run_main: RunMain,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    """The command once only ended with status 1."""
    monkeypatch.setattr("tools.eval_all._run", lambda task, arguments: 1)
    damaged = tmp_path / "runs/other/davis/result.json"
    damaged.parent.mkdir(parents=True)
    damaged.write_text("{")
    places = ["--data", small_samples, "--runs", tmp_path / "runs", "--results", tmp_path / "results"]
    assert run_main(main, [checkpoint, *places, "--tasks", "davis"]).status == 1
    assert f"{damaged}: not a readable result file" in caplog.text
    assert "no tables: 1 problem(s) in the result files; no table was written" in caplog.text


def test_mistakes_are_found_before_any_task_starts(
    small_samples: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    half, foreign = tmp_path / "half", tmp_path / "other.pth"
    half.mkdir()
    (half / "DAVIS").symlink_to(small_samples / "DAVIS")
    torch.save({"generator": {"weight": torch.ones(1)}}, foreign)
    whole = [checkpoint, "--data", small_samples]
    for arguments, message in (
        ([checkpoint, "--data", tmp_path / "absent"], "absent"),
        ([checkpoint, "--data", half], "half/coco"),
        ([checkpoint, "--data", half], "what is possible now: --tasks davis"),
        ([*whole, "--detection.iteration", "3"], "iteration"),
        ([*whole, "--tasks", "davis", "--detection.iterations", "3"], "leaves out"),
        ([*whole, "--tasks", "davis,poses"], "unknown poses; tasks: davis"),
        ([*whole, "--gpus", "0"], "gpus=0 must be positive"),
        (["--sample"], "checkpoint"),
        ([foreign, "--data", small_samples, "--tasks", "davis"], "no known layout"),
        ([*whole, "--tasks", "davis", "--runs", "/proc/nowhere"], "/proc/nowhere"),
        ([*whole, "--detection.taps", "[0,1,2,4]"], "--detection: taps"),
        ([tmp_path / "absent.pth", "--data", tmp_path / "absent"], "no such checkpoint file"),
        ([*whole, "--tasks", "davis", "--slurm"], "no `srun`"),
    ):
        places = ["--runs", tmp_path / "runs", "--results", tmp_path / "results"]
        assert message in run_main(main, [*arguments[:1], *places, *arguments[1:]]).mistake()
        assert not list((tmp_path / "runs").glob("*/*/result.json"))


def test_another_branch_of_the_same_checkpoint_needs_another_name(tmp_path: Path) -> None:
    torch.manual_seed(0)
    networks = {
        role: {f"backbone.{name}": value for name, value in build_backbone(SPEC).state_dict().items()}
        for role in ("student", "teacher")
    }
    checkpoint, output = tmp_path / "both.pth", tmp_path / "backbone.safetensors"
    facts = {"format": FORMAT_MARK, "version": VERSION, "backbone_spec": spec_to_dict(SPEC), "epoch": 1}
    torch.save(facts | networks, checkpoint)
    write_backbone(open_backbone(checkpoint, Selection(branch="teacher")), checkpoint, output)
    write_backbone(open_backbone(checkpoint, Selection(branch="teacher")), checkpoint, output)
    with pytest.raises(ValueError, match="another branch"):
        write_backbone(open_backbone(checkpoint, Selection(branch="student")), checkpoint, output)


def test_a_function_is_passed_on_to_the_tasks(run_main: RunMain, tmp_path: Path, small_samples: Path) -> None:
    common = ["tests.architectures:stages", "--data", small_samples, "--runs", tmp_path / "runs", "--tasks", "davis"]
    printed = run_main(main, [*common, "--dry-run"]).output().splitlines()
    assert printed[0].startswith("python -m eval davis --backbone tests.architectures:stages ")
    assert "--name tests.architectures.stages" in printed[0]
    assert not (tmp_path / "runs").exists()
    refused = run_main(main, ["tests.architectures:flat", *common[1:]])
    assert refused.stderr.count("tests.architectures:flat") == 1
    assert "wanted four sides" in refused.stderr


def test_the_log_and_the_newest_pictures_of_a_pretraining_come_along(tmp_path: Path) -> None:
    torch.manual_seed(0)
    network = {f"backbone.{name}": value for name, value in build_backbone(SPEC).state_dict().items()}
    folder = tmp_path / "pretrained"
    for epoch in (1, 2, 9):  # the last one is after the checkpoint
        (folder / f"watch/epoch_{epoch:04d}").mkdir(parents=True)
        (folder / f"watch/epoch_{epoch:04d}/attention.png").write_text(str(epoch))
    (folder / "log.jsonl").write_text("{}\n")
    settings = {"train.recipe": "own", "data.path": "data/imagenet/train", "train.output": "runs/own"}
    facts = {"format": FORMAT_MARK, "version": VERSION, "backbone_spec": spec_to_dict(SPEC), "epoch": 2, "settings": settings}
    torch.save({**facts, "evaluated_branch": "teacher", "teacher": network}, folder / "checkpoint.pth")
    output = tmp_path / "run/backbone.safetensors"
    write_backbone(open_backbone(folder / "checkpoint.pth"), folder / "checkpoint.pth", output)
    source = read_backbone_file(output).source
    assert (source.recipe, source.pretraining_data, source.log) == ("own", "imagenet/train", "runs/own/log.jsonl")
    copied = {path.name: path.read_text() for path in (tmp_path / "run/pretraining").iterdir()}
    assert copied == {"log.jsonl": "{}\n", "attention.png": "2"}


def test_dry_runs_print_every_task_and_write_nothing(
    small_samples: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PATH", "/nowhere")
    runs = tmp_path / "runs"
    common = [checkpoint, "--data", small_samples, "--runs", runs, "--tasks", "davis,classification", "--dry-run"]
    common += ["--classification.neighbours", "4", "8"]
    heads = run_main(main, [*common, "--num-heads", "1"]).output()
    assert heads.splitlines()[0].endswith("backbone.safetensors --num-heads 1")
    conversion, davis, classification, tables = run_main(main, [*common, "--gpus", "3"]).output().splitlines()
    assert conversion == f"# before: python tools/convert_checkpoint.py {checkpoint} {runs}/toy/backbone.safetensors"
    assert davis.startswith(f"python -m eval davis --backbone {runs}/toy/backbone.safetensors")
    assert davis.endswith("--gpus 3")
    assert "--classifiers knn" in classification
    assert tables == f"# when they have ended: python -m tables --runs {runs} --output results --first toy"
    jobs = run_main(main, ["--slurm", "--gpus", "2", "--sbatch", "account=x", "qos=low", "--hours", "3", *common]).output()
    assert {jobs.count(f"#SBATCH --{line}") for line in ("account=x", "qos=low", "time=180")} == {2}
    assert "# each of 2 processes: python -m eval davis --backbone" in jobs
    assert not runs.exists()


def write(folder: Path, task: str, values: dict[str, float], seconds: float = 48.2, **others: Any) -> None:
    """Write a result with these metrics alone."""
    result = make_result("toy", task, values=values, **others)
    metrics = {name: result.metrics[name] for name in values}
    write_result(folder / task, dataclasses.replace(result, metrics=metrics, wall_time_s=seconds, peak_memory_bytes=3 * 2**29))


def test_the_small_table_comes_first_then_deviations_times_and_files(tmp_path: Path) -> None:
    facts: dict[str, Any] = {"coverage": "sample", "deviations": {"neighbours": [[10, 20], [10]]}}
    write(tmp_path / "runs/toy", "davis", {"J&F-Mean": 61.8, "J-Mean": 60.2, "F-Mean": 63.4}, 7503.0)
    write(tmp_path / "runs/toy", "classification", {"10-NN top-1": 50.0, "10-NN top-5": 70.0}, **facts)
    files = make_tables(TablesConfig(runs=tmp_path / "runs", output=tmp_path / "results"))
    text = summary(tmp_path / "runs/toy", {"davis": 0, "classification": 0}, files)
    page = (tmp_path / "results/summary.md").read_text()
    assert text.startswith(page.rstrip())
    assert [cell.strip() for cell in text.splitlines()[2].split("|")[1:3]] == ["**`toy`**", "61.8"]
    words = " ".join(text.split())
    for shown in (
        "classification: differs from the published protocol in neighbours",
        f"davis 2 h 05 min 1.5 GiB {tmp_path}/runs/toy/davis/result.json",
        f"summary {tmp_path}/results/summary.md tables {tmp_path}/results/tables.md report",
        f"files (.csv, .jsonl, .tex) in {tmp_path}/results",
    ):
        assert shown in words


def test_a_failed_task_is_named_and_its_result_of_other_inputs_is_not_shown(tmp_path: Path) -> None:
    write(tmp_path / "runs/toy", "davis", {"J&F-Mean": 61.8, "J-Mean": 60.2, "F-Mean": 63.4})
    files = make_tables(TablesConfig(runs=tmp_path / "runs", output=tmp_path / "results"))
    assert "61.8" in summary(tmp_path / "runs/toy", {"davis": 0, "detection": 2}, files)
    write(tmp_path / "runs/toy", "detection", {"bbox_mAP": 99.9, "segm_mAP": 99.9})
    text = summary(tmp_path / "runs/toy", {"davis": 0, "detection": 2}, files)
    assert text.startswith("detection  failed with status 2, see above; another --name keeps runs apart\n")
    assert "summary.md is not shown here, since it holds an earlier result of detection" in text
    assert "99.9" not in text


def test_a_deviating_probe_leaves_knn_a_benchmark(tmp_path: Path) -> None:
    """The summary once called k-NN [deviating] where only the linear probe's epochs differ, which the tables call measured."""
    metrics = {"10-NN top-1": 50.0, "10-NN top-5": 70.0, "linear top-1": 60.0, "linear top-5": 61.0}
    write(tmp_path / "runs/toy", "classification", metrics, deviations={"epochs": [100, 3]})
    files = make_tables(TablesConfig(runs=tmp_path / "runs", output=tmp_path / "results"))
    own = summary(tmp_path / "runs/toy", {"classification": 0}, files).splitlines()[2]
    assert [cell.strip() for cell in own.split("|")[2:6]] == ["50.0", "[60.0]", "–", "k-NN measured, Linear deviating"]


def test_frozen_runs_on_the_data_that_is_there_and_says_what_it_leaves_out(
    small_samples: Path, checkpoint: Path, tmp_path: Path, run_main: RunMain, caplog: pytest.LogCaptureFixture
) -> None:
    caplog.set_level("INFO", "tools.evaluation")
    ade, voc = "ade/ADEChallengeData2016", "VOCdevkit/VOC2012"
    every = {"classification": "imagenet", "linear_segmentation": ade, "retrieval_segmentation": voc, "davis": "DAVIS"}
    found = data_folders(named_tasks("frozen"), optional_tasks("frozen"), small_samples)
    assert found == {task: small_samples / folder for task, folder in every.items()}
    assert "left out" not in caplog.text
    data = tmp_path / "data"
    (data / "VOCdevkit").mkdir(parents=True)
    (data / "DAVIS").mkdir()
    (data / "DAVIS/.DS_Store").touch()
    (data / voc).symlink_to(small_samples / voc)
    command = [
        checkpoint,
        "--data",
        data,
        "--runs",
        tmp_path / "runs",
        "--dry-run",
        "--retrieval_segmentation.memory-size",
        500,
    ]
    printed = run_main(main, [*command, "--tasks", "frozen"]).output()
    assert [line.split()[3] for line in printed.splitlines()[1:-1]] == ["linear_segmentation", "retrieval_segmentation"]
    assert printed.count(f"--data {data / voc} ") == 2
    assert f"linear_segmentation runs on the data in {data / voc}" in caplog.text
    assert f"classification is left out: there is no data in {data}/imagenet" in caplog.text
    assert f"davis is left out: there is no data in {data}/DAVIS" in caplog.text
    # A task that is named itself, or whose data is given, is not left out.
    given = arguments_for("toy.pth", ["frozen"], data, tmp_path / "out", "toy", {"davis": {"data": "elsewhere"}})
    assert list(given) == ["linear_segmentation", "retrieval_segmentation", "davis"]
    assert f"{data}/nyu" in run_main(main, [*command, "--tasks", "frozen,depth"]).mistake()
    caplog.clear()
    empty = run_main(main, [checkpoint, "--data", tmp_path / "absent", "--tasks", "frozen"]).mistake()
    assert not caplog.text
    assert "absent has no data for any of classification, linear_segmentation, retrieval_segmentation, davis" in empty
    assert "check_data.py" in empty


def test_a_gpu_that_is_named_gets_one_process(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """Several on one GPU fail in NCCL, and a network's own GPU is not for the processes that train it on all."""
    monkeypatch.setattr(torch.cuda, "device_count", lambda: 4)
    monkeypatch.delenv("NPROC_PER_NODE", raising=False)
    found = {device: local_processes(LaunchOptions(), device) for device in ("auto", "cuda", "cuda:1", "cpu")}
    assert found == {"auto": ["--gpus", "4"], "cuda": ["--gpus", "4"], "cuda:1": [], "cpu": []}
    network: Any = SimpleNamespace(parameters=lambda: iter([SimpleNamespace(device=torch.device("cuda:1"))]))
    data = {"data": "elsewhere"}
    given = arguments_for(network, ["davis", "detection"], tmp_path, tmp_path, "toy", {"davis": data, "detection": data})
    assert given["davis"][given["davis"].index("--device") + 1] == "cuda:1"
    assert "--device" not in given["detection"]
