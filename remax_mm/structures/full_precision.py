"""Where half precision must not reach, under mixed precision as well."""
import torch
from torch import Tensor


def full_precision(x: Tensor) -> Tensor:
    """``x`` in at least float32: half precision is widened, float64 (gradient checks) stays as it is."""
    return x.to(torch.promote_types(x.dtype, torch.float32))
