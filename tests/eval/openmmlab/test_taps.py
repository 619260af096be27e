import pytest

from backbones.spec import ResNetSpec, SwinSpec, ViTSpec
from eval.openmmlab.taps import choose_taps


def vit(depth: int) -> ViTSpec:
    return ViTSpec(embed_dim=24, depth=depth, num_heads=3, patch_size=16, image_size=64, class_token=False, final_norm=False)


@pytest.mark.parametrize(
    ("published", "depth", "taps"),
    [
        ((2, 5, 8, 11), 12, [2, 5, 8, 11]),
        ((2, 5, 8, 11), 24, [5, 11, 17, 23]),
        ((2, 5, 8, 11), 4, [0, 1, 2, 3]),
        ((3, 5, 7, 11), 24, [7, 11, 15, 23]),
    ],
)
def test_published_taps_keep_their_place_in_the_depth(published: tuple[int, ...], depth: int, taps: list[int]) -> None:
    assert choose_taps(None, published, vit(depth)) == taps


def test_stages_are_taken_as_published() -> None:
    swin = SwinSpec(embed_dim=24, depths=(2, 2, 6, 2), num_heads=(3, 6, 12, 24), window_size=7)
    for spec in (swin, ResNetSpec(layers=(3, 4, 6, 3))):
        assert choose_taps(None, (0, 1, 2, 3), spec) == [0, 1, 2, 3]


def test_chosen_taps_are_taken_and_checked() -> None:
    assert choose_taps([0, 1, 2, 9], (2, 5, 8, 11), vit(12)) == [0, 1, 2, 9]
    with pytest.raises(ValueError, match="choose 4 others with --taps"):
        choose_taps([0, 1, 2, 12], (2, 5, 8, 11), vit(12))
    with pytest.raises(ValueError, match="2 blocks or stages, fewer than the 4 maps"):
        choose_taps(None, (2, 5, 8, 11), vit(2))
