import numpy as np

from tools.sample_data.scenes import draw_scene


def test_the_line_parts_the_two_surfaces_and_their_pictures() -> None:
    for seed in range(10):
        scene = draw_scene(np.random.default_rng(seed), 80, 60, lower=("grass",))
        assert scene.image.shape == (60, 80, 3)
        assert scene.lower == "grass"
        assert not scene.lower_mask[: 60 * 45 // 100].any()
        assert scene.lower_mask[60 * 7 // 10 + 1 :].all()
        # The tinted grass is the only surface whose green is always its strongest channel.
        is_green = scene.image.argmax(axis=2) == 1
        assert is_green[scene.lower_mask].mean() > 0.95
        assert is_green[~scene.lower_mask].mean() < 0.05
