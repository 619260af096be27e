"""From equally large feature maps of a ViT to the four strides that FPN detectors expect.

Shapes: B images, D channels, h x w patches.
"""

from collections.abc import Sequence

from torch import Tensor, nn

STRIDES = (4, 8, 16, 32)
"""Input pixels per position of the four maps."""

PATCH_OF_BATCH_NORM = 16
"""The patch size whose pyramid has a SyncBN."""


class DeconvPyramid(nn.Module):
    """XCiT's pyramid, as SelfPatch's detection backbone uses it: each tapped map is resampled to its stride.

    Patch 16: two 2x2 deconvolutions with SyncBN and GELU between them, one deconvolution, the map itself, 2x2 maximum pooling.
    Patch 8: one deconvolution, the map itself, 2x2 and 4x4 maximum pooling. Deconvolutions keep PyTorch's initialisation.
    Source: alinlab/SelfPatch 81aef149, detection/backbone/vit_SelfPatch.py.

    The SyncBN is an ordinary batch norm where there is one process or no GPU (`runner`). No name here contains `norm`, so that the
    published rule that exempts such names from weight decay leaves the SyncBN decayed, as it was.
    """

    def __init__(self, embed_dim: int, patch_size: int) -> None:
        """Build the branches with fresh weights for maps of D = `embed_dim` channels.

        Raises:
            ValueError: For a patch size other than 16 and 8; no published pyramid exists for it.
        """
        super().__init__()
        if patch_size == PATCH_OF_BATCH_NORM:
            branches = [
                nn.Sequential(_double(embed_dim), nn.SyncBatchNorm(embed_dim), nn.GELU(), _double(embed_dim)),
                _double(embed_dim),
                nn.Identity(),
                nn.MaxPool2d(2),
            ]
        elif patch_size == 8:
            branches = [_double(embed_dim), nn.Identity(), nn.MaxPool2d(2), nn.MaxPool2d(4)]
        else:
            raise ValueError(f"the detection pyramid is defined for patch size 16 and 8, not {patch_size}")
        self.branches = nn.ModuleList(branches)

    def forward(self, maps_BDhw: Sequence[Tensor]) -> list[Tensor]:
        """Four maps of D channels with the strides `STRIDES`, from four maps [B, D, h, w], shallowest first."""
        return [branch(map_BDhw) for branch, map_BDhw in zip(self.branches, maps_BDhw, strict=True)]


def _double(channels: int) -> nn.ConvTranspose2d:
    """Twice the height and width, by a deconvolution without overlap."""
    return nn.ConvTranspose2d(channels, channels, kernel_size=2, stride=2)
