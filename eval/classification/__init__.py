"""Classification with frozen features: weighted k-NN and the linear probe."""

from eval.registry import Benchmark, Download, Task

TASK = Task(
    name="classification",
    summary="Measure a backbone's frozen features by weighted k-NN and a linear probe.",
    folder="imagenet",
    dataset="ImageNet-1k",
    # The page demands an account.
    downloads=(Download("https://image-net.org/download-images.php", "imagenet", "imagenet/train"),),
    # A class of every copy of ImageNet; `train` alone would be found in too many places.
    signs=("train/n01440764", "val/n01440764"),
    benchmarks=tuple(
        Benchmark(
            key=key,
            title=title,
            task="classification",
            protocol="dino-classification",
            items="images",
            metric_pattern=pattern,
            any_dataset=True,
            unrelated_settings=unrelated,
        )
        for key, title, pattern, unrelated in (
            (
                *("knn", "k-NN", r"(\d+)-NN top-([15])"),
                r"classifiers|epochs|batch_size|learning_rates?|training_images|linear_.*",
            ),
            ("linear", "Linear", r"linear top-([15])", r"classifiers|temperature|neighbours|knn_features"),
        )
    ),
    # The probe takes about a hundred passes over ImageNet, k-NN one.
    default_options=("--classifiers", "knn"),
    # The sample has 64 training images.
    sample_options=("--neighbours", "10", "20", "--workers", "0"),
    in_main_table=False,
)
