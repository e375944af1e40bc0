"""Conversion to float32 where half precision is not accurate enough."""
import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """Convert half precision to float32; float32 and float64 stay as they are."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
