"""Strides between ground truth and predictions."""
import itertools

import pytest
import torch

from remax_mm.models.layers import find_stride


@pytest.mark.parametrize('stride', [1, 2, 3, 4, 8, 32])
def test_find_stride__aligned_sizes(stride):
    for size in itertools.product(range(2, 6), range(1, 6)):
        full_size = [(side - 1) * stride + 1 for side in size]
        assert find_stride(full_size, size) == stride
        # The strided map has the size of the prediction, and both end at the last pixel.
        rows, columns = (torch.arange(full)[::stride] for full in full_size)
        assert (len(rows), len(columns)) == size
        assert (rows[-1], columns[-1]) == (full_size[0] - 1, full_size[1] - 1)


def test_find_stride__one_pixel():
    assert find_stride((1, 1), (1, 1)) == 1


@pytest.mark.parametrize('full_size, size', [
    ((9, 9), (4, 4)),
    ((9, 9), (9, 5)),
    ((9, 9), (17, 17)),
    ((9, 9), (1, 1)),
    ((9, 9), (5, 3)),
    ((9, 9), (10, 10)),
    ((32, 32), (8, 8)),
    ((33, 33), (9, 7)),
    ((5, 5), (2, 3)),
    ((10, 10), (3, 3)),
])
def test_find_stride__no_common_stride(full_size, size):
    with pytest.raises(ValueError) as error:
        find_stride(full_size, torch.Size(size))
    assert f'but got ground truth of {full_size} and a prediction of {size}' in str(error.value)
