import pytest
import torch

from common.precision import full_float32


def allowed() -> tuple[bool, bool]:
    return torch.backends.cudnn.allow_tf32, torch.backends.cuda.matmul.allow_tf32


def test_no_tf32_inside_and_as_before_outside() -> None:
    before = allowed()
    assert before[0]  # PyTorch's default, without which there is nothing to do
    with full_float32():
        assert allowed() == (False, False)
    assert allowed() == before
    with pytest.raises(ZeroDivisionError), full_float32():
        raise ZeroDivisionError
    assert allowed() == before


@pytest.mark.gpu
@pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
def test_convolutions_on_a_gpu() -> None:
    torch.manual_seed(0)
    network = torch.nn.Conv2d(3, 384, 16, 16).requires_grad_(False)
    images_B3HW = torch.randn(1, 3, 64, 64)
    wanted = network.double()(images_B3HW.double())
    with full_float32():
        found = network.float().cuda()(images_B3HW.cuda()).cpu().double()
    torch.testing.assert_close(found, wanted, atol=2e-5, rtol=0)  # TF32 is off by about 1e-3
