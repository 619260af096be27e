from pathlib import Path

import pytest

from pretrain.config import WatchConfig


@pytest.mark.parametrize(
    ("values", "message"),
    [
        ({"every": -1}, r"watch\.every=-1"),
        ({"num_images": 0}, r"watch\.num_images=0"),
        ({"knn_train": Path("a")}, "come together"),
        ({"knn_val": Path("a")}, "come together"),
        ({"every": 0, "images": Path("a")}, r"watch\.images has no effect"),
        ({"every": 0, "knn_train": Path("a"), "knn_val": Path("b")}, r"watch\.knn_train has no effect"),
    ],
)
def test_refused(values: dict, message: str) -> None:
    with pytest.raises(ValueError, match=message):
        WatchConfig(**values)
