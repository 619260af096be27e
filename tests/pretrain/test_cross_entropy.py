"""The loss over prototypes in chunks against the formula written out, in float64: values and gradients."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from pretrain.objectives import cross_entropy
from pretrain.objectives.centre import Centre
from pretrain.objectives.cross_entropy import SharpenedTargets, weighted_cross_entropy
from pretrain.prototype_logits import PrototypeLogits, concatenate, values

ROWS, WIDTH, CLASSES, POSITIONS = 11, 5, 7, 3
STUDENT_T, TEACHER_T = 0.1, 0.04


@pytest.fixture(params=[1, 4, 100])
def rows_of_a_chunk(request: pytest.FixtureRequest, monkeypatch: pytest.MonkeyPatch) -> int:
    monkeypatch.setattr(cross_entropy, "_LEAST_ROWS", request.param)
    monkeypatch.setitem(cross_entropy._CHUNK_VALUES, "cpu", 1)
    return request.param


def drawn(*shape: int) -> Tensor:
    return torch.randn(shape, dtype=torch.float64)


def plain(student_RK: Tensor, teacher_RK: Tensor, centre: Tensor, weights_R: Tensor) -> Tensor:
    targets_RK = torch.softmax((teacher_RK - centre) / TEACHER_T, dim=-1)
    return -(weights_R * (targets_RK * torch.log_softmax(student_RK / STUDENT_T, dim=-1)).sum(-1)).sum()


@pytest.mark.usefixtures("rows_of_a_chunk")
def test_loss_and_gradients_are_those_of_the_formula() -> None:
    torch.manual_seed(0)
    embeddings, prototypes = drawn(ROWS, WIDTH).requires_grad_(), drawn(CLASSES, WIDTH).requires_grad_()
    teacher = PrototypeLogits(drawn(ROWS, WIDTH), drawn(CLASSES, WIDTH))
    centre, weights = drawn(CLASSES), torch.rand(ROWS, dtype=torch.float64)
    expected = plain(embeddings @ prototypes.T, values(teacher), centre, weights)
    wanted = torch.autograd.grad(0.3 * expected, (embeddings, prototypes))
    targets = SharpenedTargets(teacher, centre, TEACHER_T)
    found, losses = weighted_cross_entropy(PrototypeLogits(embeddings, prototypes), targets, weights, STUDENT_T)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(weights @ losses, expected.detach())
    assert not losses.requires_grad
    for gradient, right in zip(torch.autograd.grad(0.3 * found, (embeddings, prototypes)), wanted, strict=True):
        torch.testing.assert_close(gradient, right)


@pytest.mark.usefixtures("rows_of_a_chunk")
def test_numerical_gradients() -> None:
    torch.manual_seed(1)
    teacher, weights = PrototypeLogits(drawn(ROWS, WIDTH), drawn(CLASSES, WIDTH)), torch.rand(ROWS, dtype=torch.float64)

    def loss(embeddings: Tensor, prototypes: Tensor) -> Tensor:
        targets = SharpenedTargets(teacher, drawn(CLASSES) * 0, TEACHER_T)
        return weighted_cross_entropy(PrototypeLogits(embeddings, prototypes), targets, weights, STUDENT_T)[0]

    assert torch.autograd.gradcheck(loss, (drawn(ROWS, WIDTH).requires_grad_(), drawn(CLASSES, WIDTH).requires_grad_()))


@pytest.mark.usefixtures("rows_of_a_chunk")
def test_logits_given_as_values_and_a_centre_for_each_position() -> None:
    torch.manual_seed(2)
    student, teacher, centre = drawn(ROWS, CLASSES).requires_grad_(), drawn(ROWS, CLASSES), drawn(POSITIONS, CLASSES)
    positions, weights = torch.randint(POSITIONS, (ROWS,)), torch.rand(ROWS, dtype=torch.float64)
    expected = plain(student, teacher, centre[positions], weights)
    found, _ = weighted_cross_entropy(student, SharpenedTargets(teacher, centre, TEACHER_T, positions), weights, STUDENT_T)
    torch.testing.assert_close(found, expected)
    torch.testing.assert_close(*(torch.autograd.grad(value, student)[0] for value in (found, expected)))


def test_extreme_logits_stay_finite() -> None:
    """Sharpened far beyond what exp can hold."""
    student = torch.tensor([[300.0, -300.0], [0.0, 0.0]], requires_grad=True)
    targets = SharpenedTargets(torch.tensor([[-50.0, 50.0], [50.0, -50.0]]), torch.zeros(2), 0.01)
    loss, losses = weighted_cross_entropy(student, targets, torch.ones(2), STUDENT_T)
    loss.backward()
    torch.testing.assert_close(losses, torch.tensor([6000.0, math.log(2)]))
    torch.testing.assert_close(student.grad, torch.tensor([[10.0, -10.0], [-5.0, 5.0]]))


def test_no_rows_give_no_loss() -> None:
    student = PrototypeLogits(torch.empty(0, WIDTH, requires_grad=True), torch.randn(CLASSES, WIDTH, requires_grad=True))
    targets = SharpenedTargets(PrototypeLogits(torch.empty(0, WIDTH), torch.randn(CLASSES, WIDTH)), torch.zeros(CLASSES), 1.0)
    loss, losses = weighted_cross_entropy(student, targets, torch.empty(0), STUDENT_T)
    loss.backward()
    assert loss.item() == 0
    assert losses.shape == (0,)


def test_bfloat16_products_have_float32_losses() -> None:
    torch.manual_seed(3)
    embeddings = F.normalize(torch.randn(ROWS, WIDTH), dim=-1)
    prototypes = torch.randn(CLASSES, WIDTH, requires_grad=True)
    targets = SharpenedTargets(torch.randn(ROWS, CLASSES), torch.zeros(CLASSES), 1.0)
    losses, gradients = [], []
    for dtype in (torch.float32, torch.bfloat16):
        student = PrototypeLogits(embeddings.to(dtype), prototypes)
        losses.append(weighted_cross_entropy(student, targets, torch.full((ROWS,), 1 / ROWS), 1.0)[0])
        gradients.append(torch.autograd.grad(losses[-1], prototypes)[0])
    assert losses[1].dtype == gradients[1].dtype == torch.float32
    torch.testing.assert_close(losses[1], losses[0], atol=0.02, rtol=0)
    torch.testing.assert_close(gradients[1], gradients[0], atol=0.02, rtol=0)


def test_the_centre_of_products_is_that_of_the_logits() -> None:
    torch.manual_seed(4)
    prototypes = torch.randn(CLASSES, WIDTH)
    parts = [PrototypeLogits(torch.randn(views, 3, POSITIONS, WIDTH), prototypes) for views in (2, 1)]
    lazy, given = Centre(CLASSES, 0.9, POSITIONS), Centre(CLASSES, 0.9, POSITIONS)
    lazy.observe(parts)
    given.observe([values(concatenate(parts))])
    for centre in (lazy, given):
        centre.move()
    torch.testing.assert_close(lazy.mean_K, given.mean_K)
