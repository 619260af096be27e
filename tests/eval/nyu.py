"""A small data set in BTS's layout of NYU depth: walls with steps, of which the nearer part is brighter."""

from pathlib import Path

import numpy as np
from PIL import Image

HEIGHT, WIDTH = 60, 80


def write_depth(path: Path, depth_mm: np.ndarray) -> None:
    Image.fromarray(depth_mm).save(path)


def draw_pair(root: Path, image: str, depth: str, seed: int) -> None:
    random = np.random.default_rng(seed)
    edge = int(random.integers(20, 60))
    near_HW = np.broadcast_to(np.arange(WIDTH) < edge, (HEIGHT, WIDTH))
    depth_HW = np.where(near_HW, 1500, 4000) + random.integers(0, 100, (HEIGHT, WIDTH))
    depth_HW[:, edge] = 0
    pixels = np.where(near_HW, 200, 40)[..., None] + random.integers(0, 30, (HEIGHT, WIDTH, 3))
    (root / image).parent.mkdir(parents=True, exist_ok=True)
    Image.fromarray(pixels.astype(np.uint8)).save(root / image)
    write_depth(root / depth, depth_HW.astype(np.uint16))


def make_nyu(root: Path, train: int = 5, test: int = 3) -> Path:
    """BTS's training list begins its paths with a slash, the test list does not."""
    for split, count, slash in (("train", train, "/"), ("test", test, "")):
        lines = []
        for number in range(count):
            image, depth = f"room_{split}/rgb_{number:05d}.jpg", f"room_{split}/sync_depth_{number:05d}.png"
            draw_pair(root, image, depth, seed=number + 10 * (split == "test"))
            lines.append(f"{slash}{image} {slash}{depth} 518.8579\n")
        (root / f"nyu_{split}.txt").write_text("".join(lines))
    return root
