"""JHMDB: joints that labels of a video's first frame carry through it, and PCK."""

from eval.registry import Benchmark, Chart, Download, Task, columns_of
from eval.shared import VIDEOWALK

_PCK = tuple((f"pck{tenth}", f"PCK@.{tenth}", f"PCK@0.{tenth}") for tenth in range(1, 6))

TASK = Task(
    name="jhmdb",
    summary="Propagate the joints of persons through each video of JHMDB by a backbone's features, and measure PCK.",
    folder="JHMDB",
    dataset="JHMDB",
    # Its page links joint positions, frames (Rename_Images) and splits.
    downloads=(Download("http://jhmdb.is.tue.mpg.de/challenge/JHMDB/datasets", "JHMDB", "JHMDB/joint_positions"),),
    signs=("joint_positions", "Rename_Images"),
    benchmarks=tuple(
        Benchmark(
            key=f"jhmdb_{protocol}",
            title=f"JHMDB, {words}",
            task="jhmdb",
            protocol=f"jhmdb-{protocol}",
            items="videos",
            columns=columns_of(f"jhmdb_{protocol}", _PCK),
            charts=(Chart("PCK@0.1", "PCK@0.1", "PCK@.1 per joint"),),
        )
        for protocol, words in VIDEOWALK
    ),
    sample_options=("--overlays", "true"),
    in_main_table=False,
)
