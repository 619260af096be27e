"""The loss at the size of label maps against torch's own, and predicted classes a few at a time."""

import pytest
import torch
import torch.nn.functional as F

import eval.probes.dense as module
from eval.probes.data import VOID
from eval.probes.dense import cross_entropy, enlarged, predicted_classes


@pytest.mark.parametrize("per_labelled", [False, True])
@pytest.mark.parametrize(("patches", "pixels"), [((6, 5), (33, 20)), ((9, 9), (9, 9)), ((7, 7), (4, 5)), ((1, 1), (3, 2))])
def test_the_loss_and_its_gradient_are_those_of_enlarged_logits(
    patches: tuple[int, int], pixels: tuple[int, int], per_labelled: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(module, "_CELLS_AT_ONCE", (4 * 11 * pixels[1],) * 2)  # four rows
    generator = torch.Generator().manual_seed(0)
    logits = (20 * torch.randn(3, 11, *patches, generator=generator)).requires_grad_()
    labels = torch.randint(0, 11, (3, *pixels), generator=generator).to(torch.uint8)
    labels[torch.rand(labels.shape, generator=generator) < 0.3] = VOID
    labels[1] = VOID
    found = cross_entropy(logits, labels, per_labelled)
    (gradient,) = torch.autograd.grad(3 * found, logits)
    total = F.cross_entropy(enlarged(logits, pixels), labels.long(), ignore_index=VOID, reduction="sum")
    wanted = total / (int((labels != VOID).sum()) if per_labelled else labels.numel())
    torch.testing.assert_close(found, wanted)
    torch.testing.assert_close(gradient, torch.autograd.grad(3 * wanted, logits)[0], atol=1e-6, rtol=1e-4)


def test_what_enlarges_is_made_once_for_all_heads_and_updates(monkeypatch: pytest.MonkeyPatch) -> None:
    """Each loss made it anew and copied it to the GPU, which first had to end all other work."""
    logits, labels = torch.randn(2, 3, 5, 7), torch.ones(2, 19, 23, dtype=torch.uint8)
    expected = cross_entropy(logits, labels, False)
    monkeypatch.setattr(F, "interpolate", None)
    assert torch.equal(cross_entropy(logits, labels, False), expected)


def test_a_batch_without_any_label_has_no_loss() -> None:
    logits = torch.randn(1, 3, 2, 2, requires_grad=True)
    loss = cross_entropy(logits, torch.full((1, 4, 4), VOID, dtype=torch.uint8), True)
    assert float(loss) == 0
    assert not torch.autograd.grad(loss, logits)[0].any()


def test_classes_are_those_of_the_largest_enlarged_logit_and_the_first_of_equal_ones() -> None:
    logits = torch.randn(1, 40, 5, 4, generator=torch.Generator().manual_seed(0))
    assert torch.equal(predicted_classes(logits, (17, 9)), enlarged(logits, (17, 9))[0].argmax(0))
    assert not predicted_classes(torch.zeros(1, 40, 5, 4), (17, 9)).any()
