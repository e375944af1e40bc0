import pytest
import torch

from remax_mm.models.layers import sum_by_owner


def _inputs(dtype: torch.dtype = torch.float64) -> tuple:
    """Values of 7 pixels and owners among 4, of which the last one has no pixel."""
    return torch.randn(2, 3, 7, dtype=dtype), torch.randint(0, 3, (2, 7))


@pytest.mark.parametrize('one_hot_elements', [1, 17, 2**22])  # a pixel at a time, two, all
def test_sum_by_owner__loops(one_hot_elements, monkeypatch):
    monkeypatch.setattr('remax_mm.models.layers.owner_sums.ONE_HOT_ELEMENTS', one_hot_elements)
    values, owner = _inputs()
    expected = torch.zeros(2, 3, 4, dtype=torch.float64)
    for image in range(2):
        for pixel in range(7):
            expected[image, :, owner[image, pixel]] += values[image, :, pixel]
    torch.testing.assert_close(sum_by_owner(values, owner, 4), expected)


def test_sum_by_owner__gradient():
    values, owner = _inputs()
    assert torch.autograd.gradcheck(lambda v: sum_by_owner(v, owner, 4), values.requires_grad_())


def test_sum_by_owner__keeps_the_owners_alone():
    values, owner = _inputs()
    kept = []
    with torch.autograd.graph.saved_tensors_hooks(lambda x: kept.append(x) or x, lambda x: x):
        sum_by_owner(values.requires_grad_(), owner, 4)
    assert len(kept) == 1 and torch.equal(kept[0], owner)


def test_sum_by_owner__traced():
    # mmengine counts operations in a traced graph, in which an autograd function is an error.
    values, owner = _inputs()
    graph, output = torch.jit._get_trace_graph(_Sums(), (values.requires_grad_(), owner))
    assert torch.equal(output, sum_by_owner(values, owner, 4)) and 'aten::baddbmm' in str(graph)


class _Sums(torch.nn.Module):

    def forward(self, values: torch.Tensor, owner: torch.Tensor) -> torch.Tensor:
        return sum_by_owner(values, owner, 4)
