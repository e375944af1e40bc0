"""Multi-head softmax attention with norms instead of the scaling by sqrt(depth)."""
from torch import Tensor, nn

from remax_mm.structures import full_precision


def attend(query: Tensor, key: Tensor, value: Tensor, similarity_norm: nn.Module,
           value_norm: nn.Module) -> Tensor:
    """Attend from Q queries to S keys and values, separately for each head.

    ``AttentionOperation`` of google-research/deeplab2, model/layers/dual_path_transformer.py.

    Args:
        query: (B, heads, depth, Q).
        key: (B, heads, depth, S).
        value: (B, heads, value depth, S).
        similarity_norm: applied to the similarities (B, heads, Q, S).
        value_norm: applied to the retrieved values (B, heads * value depth, Q).

    Returns:
        Retrieved and normalized values (B, heads * value depth, Q).
    """
    similarity = similarity_norm(query.transpose(2, 3) @ key)
    weights = full_precision(similarity).softmax(-1).to(value.dtype)
    return value_norm((value @ weights.transpose(2, 3)).flatten(1, 2))
