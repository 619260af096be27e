from collections.abc import Callable
from pathlib import Path

import cv2
import numpy as np
import pytest

from eval.davis.masks import read_mask, write_mask
from eval.davis.propagation import main
from tests.eval.davis.conftest import FRAMES, HEIGHT, SEQUENCES, WIDTH, draw_sequence

Run = Callable[..., tuple[int, str, str]]


def command(davis: Path, backbone: Path, output: Path, *more: object) -> tuple[object, ...]:
    return (main, "--backbone", backbone, "--davis", davis, "--output", output, "--short_side", 64, "--device", "cpu", *more)


def test_the_command_writes_a_mask_for_every_frame(
    davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    output = tmp_path / "masks"
    assert run(*command(davis, backbone_files["vit"], output)) == (0, "", "")
    for name in SEQUENCES:
        frames = sorted(path.stem for path in (davis / "JPEGImages/480p" / name).glob("*.jpg"))
        assert sorted(path.stem for path in (output / name).glob("*.png")) == frames
        annotations = davis / "Annotations/480p" / name
        assert (read_mask(output / name / "00000.png") == read_mask(annotations / "00000.png")).all()
        last = read_mask(output / name / f"{frames[-1]}.png")
        assert last.shape == (HEIGHT, WIDTH)
        assert set(np.unique(last)) <= {0, 1, 2}
        second = read_mask(output / name / "00001.png"), read_mask(annotations / "00001.png")
        assert np.mean(second[0] == second[1]) > 0.8  # random features still find most of what hardly moved


def test_objects_without_ids_in_the_first_frame(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    write_mask(davis / "Annotations/480p/boat/00000.png", np.zeros((HEIGHT, WIDTH), np.uint8))
    assert run(*command(davis, backbone_files["vit"], tmp_path / "masks", "--sequences", "boat"))[0] == 0
    assert not read_mask(tmp_path / "masks/boat/00003.png").any()


def spoil_jpeg(davis: Path) -> None:
    path = davis / "JPEGImages/480p/boat/00002.jpg"
    path.write_bytes(path.read_bytes()[:900])


def spoil_inside(davis: Path) -> None:
    """Damage that only decoding finds."""
    path = davis / "JPEGImages/480p/boat/00002.jpg"
    content = path.read_bytes()
    path.write_bytes(content[: content.index(b"\xff\xdb")] + content[content.index(b"\xff\xc0") :])


def enlarge_frame(davis: Path) -> None:
    cv2.imwrite(str(davis / "JPEGImages/480p/boat/00003.jpg"), np.zeros((HEIGHT, WIDTH + 2, 3), np.uint8))


def shrink_first_mask(davis: Path) -> None:
    write_mask(davis / "Annotations/480p/boat/00000.png", np.ones((5, 5), np.uint8))


def spoil_first_mask(davis: Path) -> None:
    (davis / "Annotations/480p/boat/00000.png").write_bytes(b"not an image")


@pytest.mark.parametrize(
    ("spoil", "message"),
    [
        (spoil_jpeg, "files are cut off before their end: JPEGImages/480p/boat/00002.jpg"),
        (enlarge_frame, f"boat/00003.jpg ({WIDTH + 2} x {HEIGHT} instead of {WIDTH} x {HEIGHT})"),
        (shrink_first_mask, f"boat/00000.png (5 x 5 instead of {WIDTH} x {HEIGHT})"),
        (spoil_first_mask, "files are not images by their first bytes: Annotations/480p/boat/00000.png"),
    ],
)
def test_damaged_files_are_named_in_one_line(
    spoil: Callable[[Path], None], message: str, davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    spoil(davis)
    status, _, errors = run(*command(davis, backbone_files["vit"], tmp_path / "masks"))
    assert status == 2
    assert message in errors
    assert len(errors.splitlines()) == 1
    assert not (tmp_path / "masks/boat").exists()


def test_other_mistakes_are_one_line(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    backbone, output = backbone_files["vit"], tmp_path / "masks"
    (tmp_path / "full").mkdir()
    (tmp_path / "full/note.txt").write_text("mine")
    for message, arguments in {
        "no such file; make it with": command(davis, tmp_path / "none.safetensors", output),
        "should be a DAVIS folder": command(tmp_path / "none", backbone, output),
        "files of unknown origin": command(davis, backbone, tmp_path / "full"),
        "taps [2] are not ascending indices of this vit's 2 blocks": command(davis, backbone, output, "--block", 2),
        "topk=0 must be at least 1": command(davis, backbone, output, "--topk", 0),
        "temperature=0.01 must be at least 0.0125": command(davis, backbone, output, "--temperature", 0.01),
        "device 'abacus' is not known": command(davis, backbone, output, "--device", "abacus"),
        "not a multiple of the patch size": command(davis, backbone, output, "--short_side", 68),
        "--unknown": command(davis, backbone, output, "--unknown", 1),
    }.items():
        status, _, errors = run(*arguments)
        assert (status, len(errors.splitlines())) == (2, 1), message
        assert message in errors


def test_masks_of_other_inputs_are_not_mixed(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    output = tmp_path / "masks"
    first = command(davis, backbone_files["vit"], output, "--sequences", "boat")
    assert run(*first)[0] == 0
    for other in (
        command(davis, backbone_files["vit_with_cls_and_norm"], output, "--sequences", "boat"),
        (*first, "--topk", 3),
        (*first, "--year", "2016", "--split", "all"),
    ):
        status, _, errors = run(*other)
        assert status == 2
        assert "holds masks of other inputs" in errors
    draw_sequence(davis, "longer", 9, frames=FRAMES + 5)
    assert run(*first)[0] == 0


def test_what_stopped_before_its_first_sequence_does_not_hold_its_folder(
    davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run
) -> None:
    """Another attempt once had to choose another folder, though nothing was in this one."""
    output = tmp_path / "masks"
    spoil_inside(davis)
    first = command(davis, backbone_files["vit"], output, "--sequences", "boat")
    assert run(*first)[0] == 2
    (output / ".propagation.123.tmp.json").write_text("{")  # as a killed process leaves it
    assert run(*command(davis, backbone_files["vit"], output, "--sequences", "cart", "--topk", 3))[0] == 0
    assert not list(output.glob(".propagation*"))
    status, _, errors = run(*first)
    assert status == 2
    assert "holds masks of other inputs" in errors


def test_other_first_masks_are_other_inputs(davis: Path, backbone_files: dict[str, Path], tmp_path: Path, run: Run) -> None:
    """Masks of the old ones were kept."""
    first = command(davis, backbone_files["vit"], tmp_path / "masks", "--sequences", "boat")
    assert run(*first)[0] == 0
    write_mask(davis / "Annotations/480p/boat/00000.png", np.ones((HEIGHT, WIDTH), np.uint8))
    status, _, errors = run(*first)
    assert status == 2
    assert "holds masks of other inputs" in errors
