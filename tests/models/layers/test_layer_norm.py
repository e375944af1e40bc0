import torch

from remax_mm.models.layers import LayerNorm2d
from tests.random_statistics import randomize_norms


def test_layer_norm_2d__one_pixel_by_hand():
    norm = randomize_norms(LayerNorm2d(5, eps=1e-6)).double()
    x = torch.randn(2, 5, 3, 4, dtype=torch.float64)
    pixel = x[1, :, 2, 3]
    expected = (pixel - pixel.mean()) / (pixel.var(unbiased=False) + 1e-6).sqrt() * norm.weight + norm.bias
    torch.testing.assert_close(norm(x)[1, :, 2, 3], expected)
