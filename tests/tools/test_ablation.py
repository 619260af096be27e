"""The ablations: which recipe is which row, what a run costs, and the command end to end at toy size."""

import csv
import json
import os
import subprocess
import sys
import typing
from pathlib import Path
from typing import Any

import pytest

from common.cli import parse
from pretrain.checkpoint import CHECKPOINT_FILE
from pretrain.config import PretrainConfig, parse_run
from pretrain.recipe_files import recipe_names
from tests.conftest import REPOSITORY, RunMain
from tests.processes import kill_when
from tools.ablation import AblationOptions, main, plan_jobs, plan_other_jobs
from tools.ablation_runner.cost import count_flops, measure_work, speed_of
from tools.ablation_runner.job import JobOptions, as_options
from tools.ablation_runner.rows import COCO_IMAGES, ROWS, Table, choose_rows, departures, published_rows, tiny_changes
from tools.make_sample_data import SampleConfig, draw_samples


@pytest.fixture(scope="module")
def ablation_data(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Sample data as the ablations' `--data` has it: the photographs stand for COCO train2017."""
    folder = tmp_path_factory.mktemp("ablation")
    draw_samples(SampleConfig(output=folder, train_images=1, val_images=1, frames=3, photos=2, class_images=1))
    (folder / "coco" / "train2017").rename(folder / "coco" / "one")
    (folder / "coco" / "train2017").symlink_to(folder / "photos")
    return folder


WINDOWS = {3: "3x3", 5: "5x5", 0: "all"}
AGGREGATIONS = {"attention": "on", "average": "off (average pooling)"}
METHODS = {"dino": "DINO", "moby": "MoBY", "selfpatch": "DINO+SelfPatch", "moby_selfpatch": "MoBY+SelfPatch"}


def backbone_name(config: PretrainConfig) -> str:
    if config.backbone.family == "swin":
        assert (config.backbone.embed_dim, config.backbone.stage_depths) == (96, (2, 2, 6, 2))
        return "Swin-T"
    assert (config.backbone.embed_dim, config.backbone.depth) == (192, 12)
    return f"ViT-Ti/{config.backbone.patch_size}"


def described(config: PretrainConfig, table: Table) -> dict[str, str]:
    """What the columns of the published table say of a recipe."""
    facts = {"method": METHODS[config.method], "backbone": backbone_name(config), "pretraining_data": "COCO"}
    patch = config.selfpatch
    if table == "compatibility":
        return facts | {"patch_negatives": {False: "no", True: "yes"}[patch.negatives] if config.reads("selfpatch") else ""}
    if not config.reads("selfpatch"):
        return facts | {"neighbours": "", "k": "", "aggregation": ""}
    return facts | {"neighbours": WINDOWS[patch.window], "k": str(patch.k), "aggregation": AGGREGATIONS[patch.aggregation]}


@pytest.mark.parametrize("table", typing.get_args(Table))
def test_every_published_row_has_the_recipe_that_it_describes(table: Table) -> None:
    published = published_rows(table)
    found = [row.find_published(published) for row in ROWS[table]]
    assert found == published, "every row, in the paper's order"
    for row, reference in zip(ROWS[table], found, strict=True):
        assert row.recipe in recipe_names()
        config = parse_run([row.recipe])
        facts = described(config, table)
        assert {name: reference.descriptors[name] for name in facts} == facts, row.name
        assert config.data.path.parts[-2:] == ("coco", "train2017")
    assert len({row.name for row in ROWS[table]}) == len(published)


def test_rows_are_chosen_by_their_name_or_recipe_in_the_papers_order() -> None:
    assert choose_rows("components", []) == list(ROWS["components"])
    chosen = choose_rows("components", ["d-off", "coco_selfpatch_vit_tiny", "a"])
    assert [row.name for row in chosen] == ["a", "b-3x3", "c-k4", "d-off", "d-on"]
    with pytest.raises(ValueError, match=r"no row moby-swin in the table components; its rows: a, b-3x3"):
        choose_rows("components", ["moby-swin"])


@pytest.mark.parametrize("recipe", sorted({row.recipe for rows in ROWS.values() for row in rows}))
def test_every_recipe_can_be_shortened_and_keeps_method_and_backbone(recipe: str) -> None:
    full = parse_run([recipe])
    tiny = parse_run([recipe, *as_options(tiny_changes(full))])
    assert (tiny.method, tiny.backbone) == (full.method, full.backbone)
    for name in ("window", "k", "aggregation", "negatives", "border"):
        assert getattr(tiny.selfpatch, name) == getattr(full.selfpatch, name)
    assert tiny.train.epochs * tiny.train.batch_size < full.train.batch_size
    found = departures(full, tiny, COCO_IMAGES)
    assert found["train.epochs"] == "200 -> 3"
    assert not [name for name in found if name.startswith("backbone.")]


def test_what_changes_nothing_that_is_computed_is_no_departure() -> None:
    recipe = parse_run(["coco_selfpatch_vit_tiny"])
    elsewhere = ["data.path=x/coco/train2017", "data.workers=3", "train.output=y", "train.log_every=7", "train.seed=4"]
    assert departures(recipe, parse_run(["coco_selfpatch_vit_tiny", *as_options(elsewhere)]), COCO_IMAGES) == {}
    longer = parse_run(["coco_selfpatch_vit_tiny", *as_options(["selfpatch.k=3", "data.path=any/photos"])])
    assert departures(recipe, longer, 48) == {"selfpatch.k": "4 -> 3", "images": "118287 of COCO train2017 -> 48 of any/photos"}


def vit_flops(width: int, depth: int, tokens: int) -> int:
    """A forward pass by hand: qkv, projection and a four times wider MLP take 12 width^2 per token, attention 2 width tokens."""
    return 2 * depth * tokens * (12 * width**2 + 2 * width * tokens)


def embedding_flops(width: int, patch: int, patches: int) -> int:
    return 2 * patches * width * 3 * patch**2


def tiny(recipe: str) -> PretrainConfig:
    return parse_run([recipe, *as_options(tiny_changes(parse_run([recipe])))])


def test_dino_by_hand() -> None:
    config = tiny("coco_dino_vit_tiny")
    forward = {}
    for side in (96, 80):
        patches = (side // 16) ** 2
        head = 2 * (192 * 256 + 256 * 256 + 256 * 64 + 64 * 512)
        forward[side] = (vit_flops(192, 12, patches + 1), embedding_flops(192, 16, patches), head)
    # The teacher sees the two global crops. Backward is twice forward, but for the embedding, whose input needs no gradient,
    # and the frozen last layer's weight, which gets none.
    teacher = 2 * sum(forward[96])
    student = sum(2 * (3 * vit + 2 * embedding + 3 * head) for vit, embedding, head in forward.values())
    assert count_flops(config) == pytest.approx(teacher + student, rel=0.01)


def test_selfpatch_costs_more_than_dino_and_a_longer_training_more_than_a_short_one() -> None:
    dino, selfpatch = tiny("coco_dino_vit_tiny"), tiny("coco_selfpatch_vit_tiny")
    assert 1.1 * count_flops(dino) < count_flops(selfpatch) < 4 * count_flops(dino)
    short, images = measure_work(dino, 48), 48
    assert (short.steps, short.images) == (18, 144)
    assert short.flops == 144 * short.flops_per_image
    longer = measure_work(parse_run(["coco_dino_vit_tiny", *as_options([*tiny_changes(dino), "train.epochs=30"])]), images)
    assert longer.flops == 10 * short.flops


def test_speeds() -> None:
    config = tiny("coco_dino_vit_tiny")
    config.train.device = "cpu"
    work = measure_work(config, 48)
    assert speed_of(config, "run", work, 10.0)[0] == 10 * work.flops_per_image
    flops_per_second, basis = speed_of(config, "run", work, None)
    assert flops_per_second > 0
    assert "images/s of run, timed just now over 2 steps of 2 random images on the CPU" in basis


def options(data: Path, table: Table = "components", **others: Any) -> AblationOptions:
    return AblationOptions(table=table, data=data, scale="tiny", **others)


def test_rows_of_one_recipe_share_a_run(ablation_data: Path) -> None:
    jobs = plan_jobs(options(ablation_data))
    assert [job.rows for job in jobs if len(job.rows) > 1] == [("b-3x3", "c-k4", "d-on")]
    assert sum(len(job.rows) for job in jobs) == len(ROWS["components"])
    assert len({job.options.folder for job in jobs}) == len(jobs)


def test_a_run_that_departs_from_its_recipe_says_so_in_its_name(ablation_data: Path, tmp_path: Path) -> None:
    (tiny,) = plan_jobs(options(ablation_data, only=["a"]))
    assert tiny.name == "coco_dino_vit_tiny-deviating"
    assert {"train.epochs", "images"} <= tiny.departures.keys()
    # Nothing is there: a dry run counts COCO's images.
    (full,) = plan_jobs(AblationOptions(table="components", data=tmp_path / "absent", only=["a"], dry_run=True))
    assert (full.name, full.departures, full.images) == ("coco_dino_vit_tiny", {}, 118_287)
    longer_options = {"data": tmp_path, "only": ["a"], "pretraining": ["train.epochs=300"]}
    (longer,) = plan_jobs(AblationOptions(table="components", dry_run=True, **longer_options))
    assert (longer.name, longer.departures) == ("coco_dino_vit_tiny-deviating", {"train.epochs": "200 -> 300"})


def test_rows_left_out_may_have_been_run_before_unless_the_options_do_not_fit_them(ablation_data: Path) -> None:
    given = options(ablation_data, "compatibility", only=["dino-ti16"], pretraining=["dino.out_dim=64"])
    planned = plan_jobs(given)
    others = plan_other_jobs(given, planned)
    recipes = [job.options.recipe for job in others]
    assert recipes == ["coco_selfpatch_vit_tiny", "coco_dino_vit_tiny8", "coco_selfpatch_vit_tiny8"]


def test_each_seed_is_a_run_of_its_own(ablation_data: Path) -> None:
    jobs = plan_jobs(options(ablation_data, "compatibility", only=["moby-swin", "dino-ti8"], seeds=[0, 3]))
    assert [job.name for job in jobs] == [
        *("coco_moby_swin_tiny-deviating-seed0", "coco_moby_swin_tiny-deviating-seed3"),
        *("coco_dino_vit_tiny8-deviating-seed0", "coco_dino_vit_tiny8-deviating-seed3"),
    ]
    assert [job.config.train.seed for job in jobs] == [0, 3, 0, 3]
    assert all("train.seed" not in job.departures for job in jobs)


def test_a_job_survives_its_command_line(ablation_data: Path) -> None:
    jobs = plan_jobs(options(ablation_data, only=["a", "d-on"], seeds=[1], evaluation=["jobs=2", "topk=3"]))
    assert len(jobs) == 2
    for job in jobs:
        again = parse(JobOptions, job.options.arguments(), "job")
        assert again == job.options
        assert again.pretrain_config() == job.config
        assert again.davis_config().topk == 3
        assert again.davis_config().output == job.options.result.parent


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"only": ["e"]}, "--only: no row e"),
        ({"pretraining": ["train.epoch=3"]}, "epoch"),
        ({"pretraining": ["moby.queue=3"]}, "`moby` have no effect"),
        ({"pretraining": ["train.epochs"]}, "'train.epochs' is not KEY=VALUE"),
        ({"evaluation": ["top=3"]}, "top"),
        ({"data": Path("nowhere")}, "nowhere/coco/train2017 is not a folder"),
        ({"seeds": [1, 1]}, "--seeds 1 1"),
        ({"seeds": [-1]}, "--seeds -1"),
        ({"images_per_second": 0.0}, "positive"),
    ],
)
def test_mistakes_are_found_before_any_job(ablation_data: Path, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ValueError, match=message):
        plan_jobs(options(**{"data": ablation_data, "only": ["a"], **changes}))


EPOCHS = 6
SHORTEST = [
    *("--pretraining", f"train.epochs={EPOCHS}", "backbone.depth=2", "views.local_crops=1", "data.workers=0"),
    *("--evaluation", "jobs=1"),
]
DINO, AVERAGE = "coco_dino_vit_tiny-deviating", "coco_selfpatch_vit_tiny_average-deviating"


def arguments(data: Path, folder: Path, *others: object) -> list[object]:
    places = ["--data", data, "--runs", folder / "runs", "--output", folder / "results"]
    return ["components", "--scale", "tiny", *places, *others, *SHORTEST]


def test_a_failed_job_is_named_at_the_end_and_the_others_run(
    ablation_data: Path, tmp_path: Path, run_main: RunMain, monkeypatch: pytest.MonkeyPatch
) -> None:
    started = []

    def fail_first(command: list[str]) -> "subprocess.Popen[bytes]":
        started.append(command[command.index("--name") + 1])
        return Popen([sys.executable, "-c", f"raise SystemExit({3 if len(started) == 1 else 0})"])

    Popen = subprocess.Popen
    monkeypatch.setattr(subprocess, "Popen", fail_first)
    (tmp_path / "runs").mkdir()
    finished = run_main(main, arguments(ablation_data, tmp_path, "--only", "a", "b-all", "d-off"))
    assert finished.status == 1
    assert started == [DINO, "coco_selfpatch_vit_tiny_all-deviating", AVERAGE]
    assert finished.stdout.splitlines()[-1] == f"failed with status 3: {DINO}; the same command tries it again"


@pytest.mark.slow
def test_two_rows_killed_in_the_first_then_the_same_command_fills_the_table(
    ablation_data: Path, tmp_path: Path, run_main: RunMain
) -> None:
    command = arguments(ablation_data, tmp_path, "--only", "a", "d-off")
    runs = tmp_path / "runs"
    words = [sys.executable, "tools/ablation.py", *map(str, command)]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    with (tmp_path / "log").open("w") as log:
        process = subprocess.Popen(words, cwd=REPOSITORY, env=environment, stdout=log, stderr=log, start_new_session=True)
    kill_when(process, runs / DINO / CHECKPOINT_FILE)  # the first epoch ended
    assert not (runs / DINO / "davis" / "result.json").exists()
    begun = run_main(main, [*command, "--dry-run", "--images-per-second", "1"])
    assert [line.split()[2] for line in begun.stdout.splitlines()[2:4]] == ["begun", "new"]

    finished = run_main(main, command)
    assert finished.status == 0, finished.stderr
    steps = [json.loads(line)["step"] for line in (runs / DINO / "log.jsonl").read_text().splitlines()]
    assert steps == list(range(1, 2 * EPOCHS + 1)), "each step once"
    result = runs / AVERAGE / "davis" / "result.json"
    measured = json.loads(result.read_text())["metrics"]["J&F-Mean"]["value"]
    with (tmp_path / "results" / "ablation_components.csv").open() as stream:
        rows = {row["row"]: row for row in csv.DictReader(stream)}
    assert list(rows) == ["a", "b-3x3", "b-5x5", "b-all", "c-k1", "c-k2", "c-k4", "c-k8", "d-off", "d-on"]
    assert [name for name, row in rows.items() if row["measured"]] == ["a", "d-off"]
    off = rows["d-off"]
    assert (off["published"], float(off["measured"]), off["runs"]) == ("51.4", measured, AVERAGE)
    assert off["evaluation"] == "[sample]"
    assert f"train.epochs 200 -> {EPOCHS}" in off["pretraining"]
    assert rows["b-all"]["pretraining"] == "not measured"
    assert f"d-off  {AVERAGE}" in finished.stdout
    assert AVERAGE in (tmp_path / "results" / "components.csv").read_text()

    stamps = {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()}
    again = run_main(main, [*command[:1], "--report-only", *command[1:]])
    assert again.status == 0, again.stderr
    assert {path: path.stat().st_mtime_ns for path in runs.rglob("*") if path.is_file()} == stamps
    assert again.stdout == finished.stdout


def test_the_dry_run_lists_jobs_and_their_cost_and_starts_nothing(
    ablation_data: Path, tmp_path: Path, run_main: RunMain
) -> None:
    command = arguments(ablation_data, tmp_path, "--only", "a", "d-off", "--dry-run", "--images-per-second", "0.025")
    finished = run_main(main, command)
    assert finished.status == 0, finished.stderr
    dino, average, left = (line.split() for line in finished.stdout.splitlines()[2:5])
    # 16 photographs make 2 steps of 8 images; 96 images in 6 epochs are 3840 s at 0.025 images per second.
    assert dino[:6] == [DINO, "a", "new", "6", "12", "96"]
    assert dino[-4:] == ["1", "h", "04", "min"]
    assert average[:3] == [AVERAGE, "d-off", "new"]
    assert left[:5] == ["left", "to", "do", "2", "jobs"]
    assert f"0.025 images/s of {DINO} as given" in finished.stdout
    assert f"python -m tools.ablation_runner --name {DINO} --recipe coco_dino_vit_tiny" in finished.stdout
    assert not list(tmp_path.iterdir())


def test_a_report_alone_starts_nothing(ablation_data: Path, tmp_path: Path, run_main: RunMain) -> None:
    (tmp_path / "runs").mkdir()
    finished = run_main(main, arguments(ablation_data, tmp_path, "--only", "a", "--report-only"))
    assert finished.status == 0, finished.stderr
    assert (tmp_path / "results" / "ablation_components.csv").is_file()
    assert "not measured" in finished.stdout
    assert not list((tmp_path / "runs").iterdir())


def test_jobs_for_slurm(ablation_data: Path, tmp_path: Path, run_main: RunMain) -> None:
    slurm = "--slurm --only a --gpus 4 --hours 2 --sbatch qos=low --dry-run --images-per-second 1"
    finished = run_main(main, arguments(ablation_data, tmp_path, *slurm.split()))
    assert finished.status == 0, finished.stderr
    assert f"# each of 4 processes: python -m tools.ablation_runner --name {DINO}" in finished.stdout
    assert "#SBATCH --qos=low" in finished.stdout
    assert "#SBATCH --time=120" in finished.stdout
