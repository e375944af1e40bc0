"""Softmax attention with norms on similarities and retrieved values."""
from torch import Tensor, nn

from remax_mm.structures import full_precision


def attend(query: Tensor, key: Tensor, value: Tensor, similarity_norm: nn.Module,
           value_norm: nn.Module) -> Tensor:
    """Softmax attention by head, with norms on the similarities and on what is retrieved.

    Args:
        query: (B, heads, depth, Q).
        key: (B, heads, depth, S).
        value: (B, heads, value depth, S).
        similarity_norm: of (B, heads, Q, S).
        value_norm: of (B, heads * value depth, Q).

    Returns:
        (B, heads * value depth, Q).
    """
    similarity = similarity_norm(query.transpose(2, 3) @ key)
    weights = full_precision(similarity).softmax(-1).to(value.dtype)
    return value_norm((value @ weights.transpose(2, 3)).flatten(1, 2))
