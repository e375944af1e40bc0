import pytest
import torch

from remax_mm.deploy.fold_attention_norms import fold_attention_norms
from remax_mm.deploy.fold_batch_norms import fold_batch_norms
from remax_mm.models.layers.axial_attention import AxialAttention2d
from tests.random_statistics import randomize_norms


@pytest.mark.parametrize('stride', [1, 2])
def test_folded_axial_attention__values_of_the_attention(stride):
    """The attention itself is compared with a loop over pairs of positions in tests/models/layers."""
    attention = AxialAttention2d(6, 8, 16, num_heads=4, stride=stride)
    model = randomize_norms(torch.nn.Sequential(attention)).double().eval()
    x = torch.randn(2, 6, 5, 8, dtype=torch.float64)
    with torch.no_grad():
        expected = model(x)
        report = fold_batch_norms(model, x)
        assert len(report.folded) == 6 and not report.kept
        assert type(model[0]).__name__ == 'FoldedAxialAttention2d'
        for inputs in (x, x.contiguous(memory_format=torch.channels_last)):
            found = model(inputs)
            torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    assert found.shape == (2, 16, (5 - 1) // stride + 1, (8 - 1) // stride + 1)


def test_fold_attention_norms__only_after_the_norms_of_the_projections():
    model = torch.nn.Sequential(AxialAttention2d(6, 8, 16, num_heads=4)).eval()
    fold_attention_norms(model)
    assert isinstance(model[0], AxialAttention2d)


@pytest.mark.parametrize('scale', [0.0, -1.5])
def test_folded_axial_attention__any_sign_of_the_scales(scale):
    model = randomize_norms(torch.nn.Sequential(AxialAttention2d(6, 8, 16, num_heads=4))).double().eval()
    for axis in (model[0].height_axis, model[0].width_axis):
        torch.nn.init.constant_(axis.similarity_norm.weight, scale)
        torch.nn.init.constant_(axis.output_norm.weight, scale)
    x = torch.randn(1, 6, 5, 4, dtype=torch.float64)
    assert fold_batch_norms(model, x).max_difference < 1e-10
