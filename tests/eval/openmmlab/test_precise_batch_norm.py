import torch
from torch import nn

from eval.openmmlab.precise_batch_norm import measuring_statistics


def test_statistics_are_the_mean_over_batches() -> None:
    layer = nn.BatchNorm2d(3, momentum=0.3)
    layer(torch.randn(2, 3, 4, 4) + 100)  # what training left behind
    batches = [torch.randn(2, 3, 4, 4) * scale + scale for scale in (1, 2, 5)]
    with torch.no_grad(), measuring_statistics(nn.Sequential(layer)):
        for batch_B3hw in batches:
            layer(batch_B3hw)
    means = torch.stack([batch.mean(dim=(0, 2, 3)) for batch in batches])
    variances = torch.stack([batch.transpose(0, 1).flatten(1).var(dim=1) for batch in batches])
    torch.testing.assert_close(layer.running_mean, means.mean(dim=0))
    torch.testing.assert_close(layer.running_var, variances.mean(dim=0))
    assert layer.momentum == 0.3
