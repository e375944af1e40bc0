import itertools
import math

import pytest
import torch

from remax_mm.models.layers import find_stride, resize_to


def _reference_resize(x, size):
    """Bilinear resizing of (h, w) with aligned corners, one pixel at a time."""
    output = torch.zeros(size, dtype=x.dtype)
    for row in range(size[0]):
        for column in range(size[1]):
            top = row * (x.shape[0] - 1) / max(size[0] - 1, 1)
            left = column * (x.shape[1] - 1) / max(size[1] - 1, 1)
            for i in (math.floor(top), math.ceil(top)):
                for j in (math.floor(left), math.ceil(left)):
                    weight = (1 - abs(top - i)) * (1 - abs(left - j))
                    repeats = (1 + (top == int(top))) * (1 + (left == int(left)))
                    output[row, column] += weight * x[i, j] / repeats
    return output


@pytest.mark.parametrize('size', [(5, 9), (2, 2), (9, 3), (1, 4)])
def test_resize_to__naive_loops(size):
    x = torch.randn(2, 3, 3, 5, dtype=torch.float64)
    resized = resize_to(x, size)
    assert resized.shape == (2, 3, *size)
    torch.testing.assert_close(resized[1, 2], _reference_resize(x[1, 2], size))


def test_resize_to__coarse_pixels_keep_their_values():
    # At sizes 32k + 1 each coarse pixel is at the position of a fine pixel.
    x = torch.randn(1, 1, 3, 5)
    torch.testing.assert_close(resize_to(x, (9, 17))[..., ::4, ::4], x)


def test_resize_to__same_size_is_the_same_object():
    x = torch.randn(1, 2, 3, 4)
    assert resize_to(x, torch.Size([3, 4])) is x


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
