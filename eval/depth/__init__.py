"""Depth on NYU: a linear layer on a frozen backbone's patches, under DINOv3's protocol."""

from eval.registry import Benchmark, Column, Download, Task

TASK = Task(
    name="depth",
    summary="Train a linear layer on a frozen backbone's patches to predict depth on NYU, and measure its error.",
    folder="nyu",
    dataset="NYU depth v2",
    # Its README links the 24k training pairs and the 654 test pairs.
    downloads=(Download("https://github.com/cleinc/bts", "nyu", "nyu/nyu_train.txt"),),
    signs=("nyu_train.txt", "nyu_test.txt"),
    benchmarks=(
        Benchmark(
            key="depth",
            title="NYU depth, linear",
            task="depth",
            protocol="depth-dinov3",
            items="images",
            columns=(
                Column("depth", "depth_rmse", "RMSE (m)", "rmse", "m", 3, higher_is_better=False),
                Column("depth", "depth_abs_rel", "AbsRel", "abs_rel", "fraction", 3, higher_is_better=False),
                Column("depth", "depth_a1", "a1", "a1", "fraction", 3),
            ),
        ),
    ),
    # A learning rate and a crop for so few updates of small images.
    sample_options=(
        *("--iterations", "60", "--batch-size", "4", "--crop", "96", "128", "--workers", "0"),
        *("--learning-rate", "0.02"),
    ),
    in_main_table=False,
)
