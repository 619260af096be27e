"""`python -m eval.davis.explain`: from which patches a pixel of a frame took its label, drawn as lines.

Shapes: M context frames, h x w patches, D channels of a feature.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, NamedTuple

from common.cli import parse, run_command
from common.files import write_atomically
from eval.davis.config import SplitOptions
from eval.davis.data import DavisSplit, find_sequences
from eval.propagation.masks import read_image
from eval.propagation.protocol import PropagationSettings, Rules
from eval.propagation.videos import VideoSequence

if TYPE_CHECKING:
    from matplotlib.figure import Figure
    from torch import Tensor


@dataclass(frozen=True, kw_only=True)
class ExplainConfig(SplitOptions, PropagationSettings):
    """Draw the source patches that vote for the label of one pixel: context frames above, the target frame below."""

    backbone: Path  # Backbone file.
    davis: Path  # DAVIS folder: ImageSets, JPEGImages, Annotations.
    sequence: str  # Name of the sequence.
    frame: int  # The target frame, counted from 0; at least 1.
    x: int  # Column of the pixel in the original frame.
    y: int  # Row of the pixel in the original frame.
    output: Path  # The image, a .png file.
    width: int = 427  # Pixels per frame in the image.
    device: str = "auto"  # `cpu`, `cuda`, `cuda:1`, ...; `auto`: a GPU where there is one.

    def __post_init__(self) -> None:
        super().__post_init__()
        if self.output.suffix != ".png":
            raise ValueError(f"output={self.output} must end in .png")
        if self.frame < 1:
            raise ValueError(f"frame={self.frame} must be at least 1: the first frame's labels are given")
        if self.width < 16:
            raise ValueError(f"width={self.width} must be at least 16")
        if not self.sequence.strip() or "," in self.sequence:
            raise ValueError(f"sequence={self.sequence!r} must be the name of one sequence")


class Source(NamedTuple):
    """A patch that votes: its frame's number, its place on the patch grid, its share of the vote (all sum to 1)."""

    frame: int
    row: int
    column: int
    weight: float


def explain(config: ExplainConfig) -> list[Source]:
    """Draw and return the sources, the weightiest first."""
    # They load torch, which `--help` does not need.
    import torch

    from backbones.file import load_backbone
    from common.distributed import choose_device
    from eval.propagation.features import FeatureExtractor, check_sizes, input_size, read_frame

    (sequence,) = find_sequences(DavisSplit.chosen(config.davis, config, config.sequence), all_masks=False)
    height, width = sequence.size
    if config.frame >= len(sequence.frames):
        raise ValueError(f"frame={config.frame}: {sequence.name} has frames 0 to {len(sequence.frames) - 1}")
    if not (0 <= config.x < width and 0 <= config.y < height):
        raise ValueError(f"x={config.x}, y={config.y} lies outside the {width} x {height} pixels of {sequence.name}")
    network = load_backbone(config.backbone)
    check_sizes(network.spec, [sequence.size], config)
    extract = FeatureExtractor(network, config.block, choose_device(config.device))
    rules = config.rules
    size = input_size(*sequence.size, rules, extract.input_multiple)
    numbers, copies = context_frames(sequence, config.frame, rules)
    features = [
        extract(read_frame(sequence.frames[number], size, rules, sequence.size)[None])[0] for number in (*numbers, config.frame)
    ]
    h, w, _ = features[-1].shape
    row, column = config.y * h // height, config.x * w // width
    with torch.inference_mode():
        votes = voting_patches(features[-1], torch.stack(features[:-1]), row, column, rules, copies)
    sources = [vote._replace(frame=numbers[vote.frame]) for vote in votes]
    write_atomically(config.output, draw_sources(sequence, numbers, config, sources, (h, w)).savefig)
    return sources


def context_frames(sequence: VideoSequence, frame: int, rules: Rules) -> tuple[list[int], int]:
    """Numbers of the frames that vote for a frame's labels, and how many copies of the first of them do; ValueError without any."""
    kept = [number for number, _ in sequence.beginnings if number < frame] if sequence.beginnings else [0]
    if not kept:
        raise ValueError(f"frame={frame}: no object of {sequence.name} has begun before it")
    others = [number for number in range(kept[0], frame) if number not in kept]
    copies = max(0, rules.n_last_frames - len(others)) if rules.first_frame_unlimited else 0
    return sorted([*kept, *others[max(0, len(others) - rules.n_last_frames) :]]), copies


def voting_patches(
    target_hwD: "Tensor", context_MhwD: "Tensor", row: int, column: int, rules: Rules, copies: int = 0
) -> list[Source]:
    """The sources of one target patch by the rules of `eval.propagation.propagator`, the weightiest first.

    Features are of unit length; `frame` of a source is an index into the context frames, of which the first has so many `copies`.
    """
    import torch

    from eval.propagation.propagator import penalties

    h, w, _ = target_hwD.shape
    here = slice(row, row + 1), slice(0, h), slice(column, column + 1), slice(0, w)
    penalty_hw = penalties(*here, rules, target_hwD.device)[0, 0]
    weights_Mhw = ((context_MhwD @ target_hwD[row, column]) / rules.temperature).exp()
    counts_Mhw = torch.ones_like(weights_Mhw)
    if rules.first_frame_unlimited:
        weights_Mhw[1:, penalty_hw < 0] = 0
        counts_Mhw[0] += copies * (penalty_hw == 0)
    else:
        weights_Mhw[:, penalty_hw < 0] = 0
    best = weights_Mhw.flatten().topk(min(rules.topk, weights_Mhw.numel()))
    if rules.ties == "kept":
        counts_Mhw = (weights_Mhw >= best.values[-1]).float()
    else:
        counts = counts_Mhw.flatten()[best.indices]
        remaining = (rules.topk - (counts.cumsum(0) - counts)).clamp(min=0)
        counts_Mhw = (
            torch.zeros_like(weights_Mhw.flatten()).index_copy(0, best.indices, counts.minimum(remaining)).view(-1, h, w)
        )
    weights_Mhw *= counts_Mhw
    chosen = torch.nonzero(weights_Mhw)
    weights = weights_Mhw[tuple(chosen.T)]
    shares = (weights / weights.sum()).tolist()
    sources = [Source(frame, row, column, share) for (frame, row, column), share in zip(chosen.tolist(), shares, strict=True)]
    return sorted(sources, key=lambda source: -source.weight)


def draw_sources(
    sequence: VideoSequence, numbers: Sequence[int], config: ExplainConfig, sources: Sequence[Source], grid: tuple[int, int]
) -> "Figure":
    """Context frames in rows of four, the target frame below them, and a line from the pixel to each source."""
    from matplotlib.figure import Figure
    from matplotlib.patches import ConnectionPatch, Rectangle

    height, width = sequence.size
    columns, rows = min(4, len(numbers)), -(-len(numbers) // 4) + 1
    figure = Figure((columns * config.width / 100, rows * round(height * config.width / width) / 100), dpi=100)
    figure.subplots_adjust(0, 0, 1, 1, 0, 0)
    panels = figure.subplots(rows, columns, squeeze=False)
    for panel in panels.flat:
        panel.set_axis_off()
    panel_of = {**dict(zip(numbers, panels.flat, strict=False)), config.frame: panels[-1, 0]}
    for number, panel in panel_of.items():
        panel.imshow(read_image(sequence.frames[number]), extent=(0, width, height, 0), aspect="auto")
        panel.text(0.01, 0.98, f"frame {number}", color="white", va="top", transform=panel.transAxes)
    target = panel_of[config.frame]
    patch_width, patch_height = width / grid[1], height / grid[0]
    for index, source in enumerate(sources):
        x, y = source.column * patch_width, source.row * patch_height
        panel, colour = panel_of[source.frame], f"C{index % 10}"
        panel.add_patch(Rectangle((x, y), patch_width, patch_height, fill=False, edgecolor=colour))
        ends = (config.x, config.y), (x + patch_width / 2, y + patch_height / 2), target.transData, panel.transData
        figure.add_artist(ConnectionPatch(*ends, color=colour, linewidth=1 + 3 * source.weight))
    target.plot(config.x, config.y, "o", color="white", fillstyle="none")
    return figure


def main(argv: Sequence[str]) -> int:
    config = parse(ExplainConfig, argv, "python -m eval.davis.explain")
    for source in explain(config):
        print(f"frame {source.frame}  patch row {source.row} column {source.column}  {source.weight:.3f}")  # noqa: T201
    print(config.output)  # noqa: T201 - the command's own output
    return 0


if __name__ == "__main__":
    run_command(main)
