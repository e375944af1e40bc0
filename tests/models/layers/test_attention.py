import torch
from torch import nn
from torch.utils._python_dispatch import TorchDispatchMode

from remax_mm.models.layers import attend


def _inputs(num_queries, num_keys, dtype=torch.float64):
    """Query, key and value of two images and two heads, of depths 2, 2 and 4."""
    shapes = ((2, num_queries), (2, num_keys), (4, num_keys))
    return [torch.randn(2, 2, *shape, dtype=dtype) for shape in shapes]


def test_attend__gradients():
    similarity_norm, value_norm = nn.BatchNorm2d(2).double(), nn.BatchNorm1d(8).double()
    query, key, value = (part.requires_grad_() for part in _inputs(3, 4))
    assert torch.autograd.gradcheck(lambda *parts: attend(*parts, similarity_norm, value_norm),
                                    (query, key, value))


def test_attend__shapes_of_deeplab2():
    # dual_path_transformer_test.py: 4225 queries, 422 keys, 8 heads of depths 127 and 128
    query, key = torch.zeros(2, 8, 127, 4225), torch.zeros(2, 8, 127, 422)
    output = attend(query, key, torch.zeros(2, 8, 128, 422), nn.Identity(), nn.Identity())
    assert output.shape == (2, 1024, 4225)


def test_attend__softmax_in_float32():
    softmax_dtypes = []

    class RecordSoftmax(TorchDispatchMode):

        def __torch_dispatch__(self, function, types, args=(), kwargs=None):
            if 'softmax' in function.__name__:
                softmax_dtypes.append(args[0].dtype)
            return function(*args, **(kwargs or {}))

    with RecordSoftmax():
        output = attend(*_inputs(4, 4, torch.bfloat16), nn.Identity(), nn.Identity())
    assert softmax_dtypes == [torch.float32] and output.dtype == torch.bfloat16
