import pytest
import torch

from remax_mm.structures import full_precision


@pytest.mark.parametrize('dtype, expected', [(torch.float16, torch.float32), (torch.bfloat16, torch.float32),
                                             (torch.float32, torch.float32), (torch.float64, torch.float64)])
def test_full_precision__widens_only(dtype, expected):
    assert full_precision(torch.ones(2, dtype=dtype)).dtype == expected
