"""What the checkpoint says of its run."""

from pathlib import Path

import pytest

from backbones.convert import convert_checkpoint
from pretrain.config import PretrainConfig, parse_run
from pretrain.run import pretrain
from pretrain.state import recipe_digest, run_settings
from tests.pretrain.conftest import tiny_options


def _digest(config: PretrainConfig) -> str:
    return recipe_digest(run_settings(config, ["a.jpg"]))


@pytest.mark.parametrize(
    ("option", "value", "same"),
    [
        ("--train.seed", "5", True),
        ("--train.log-every", "3", True),
        ("--data.workers", "1", True),
        ("--optim.lr", "0.123", False),
        ("--train.epochs", "3", False),
    ],
)
def test_runs_of_one_recipe_share_their_digest(tmp_path: Path, option: str, value: str, same: bool) -> None:
    arguments = ["sample_dino", "--data.path", str(tmp_path)]
    assert (_digest(parse_run(arguments)) == _digest(parse_run([*arguments, option, value]))) == same


@pytest.mark.parametrize(
    ("recipe", "more", "same"),
    [
        ("sample_dino", [], True),
        ("sample_selfpatch", [], True),
        ("sample_matching", [], True),
        ("sample_selfpatch", ["--selfpatch.negatives", "true", "--selfpatch.out_dim", "4096"], False),
        ("sample_moby", [], False),
        ("sample_moby_selfpatch", [], False),
    ],
)
def test_parts_of_a_batch_are_no_matter_unless_heads_normalise_over_them(
    tmp_path: Path, recipe: str, more: list[str], same: bool
) -> None:
    arguments = [recipe, "--data.path", str(tmp_path), *more]
    assert (_digest(parse_run(arguments)) == _digest(parse_run([*arguments, "--train.accumulate", "2"]))) == same


def test_other_images_are_another_recipe(tmp_path: Path) -> None:
    config = parse_run(["sample_dino", "--data.path", str(tmp_path)])
    digests = {recipe_digest(run_settings(config, [name])) for name in ("a.jpg", "b.jpg")}
    assert len(digests) == 2


def test_a_converted_checkpoint_states_recipe_and_seed(image_folder: Path, tmp_path: Path) -> None:
    config = parse_run(["sample_dino", *tiny_options(image_folder, tmp_path, "dino"), "--train.seed", "7"])
    conversion = convert_checkpoint(pretrain(config))
    assert conversion.seed == 7
    assert len(conversion.recipe_sha256) == 64
