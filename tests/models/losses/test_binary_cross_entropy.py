import pytest
import torch
import torch.nn.functional as F

from remax_mm.models.losses import sum_binary_cross_entropy


@pytest.mark.parametrize('dtype, tolerance', [(torch.float32, 1e-6), (torch.float64, 1e-12)])
def test_sum_binary_cross_entropy__large_logits(dtype, tolerance):
    # Logits that are right by far: the loss is a small number.
    logits = torch.randn(2, 6, 9, dtype=dtype) - 12
    label = torch.randint(0, 6, (2, 9))
    logits.scatter_(1, label[:, None], torch.rand(2, 1, 9, dtype=dtype) * 30).requires_grad_()
    weights = torch.rand(2, 6, dtype=dtype)
    loss = sum_binary_cross_entropy(logits, label, weights)

    exact = logits.detach().double().requires_grad_()
    masks = torch.zeros_like(exact).scatter(1, label[:, None], 1)
    dense = -masks * F.logsigmoid(exact) - (1 - masks) * F.logsigmoid(-exact)
    expected = (dense * weights.double()[:, :, None]).sum(1)
    torch.testing.assert_close(loss.double(), expected, rtol=tolerance, atol=0)
    gradient, = torch.autograd.grad(loss.sum(), logits)
    expected, = torch.autograd.grad(expected.sum(), exact)
    torch.testing.assert_close(gradient.double(), expected, rtol=tolerance, atol=tolerance)


def test_sum_binary_cross_entropy__gradient():
    logits = torch.randn(2, 4, 5, dtype=torch.float64, requires_grad=True)
    label, weights = torch.randint(0, 4, (2, 5)), torch.rand(2, 4, dtype=torch.float64)
    assert torch.autograd.gradcheck(lambda z: sum_binary_cross_entropy(z, label, weights), logits)
