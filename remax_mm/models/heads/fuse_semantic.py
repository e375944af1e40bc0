"""Fusion of mask slots into a semantic map."""
from typing import Tuple, Union

import torch
from torch import Tensor

from .mask_rows import MaskRows, as_rows

MINOR_CLASS_PROBABILITY = 0.02
"""A slot is void for a semantic map if none of its classes is more probable."""
SUM_ROUNDING = 1e-4
"""More than rounding can change in a sum of probabilities."""


@torch.no_grad()
def fuse_semantic(class_logits: Tensor, mask_logits: Union[Tensor, MaskRows]) -> Tensor:
    """The class with the highest summed probability at every pixel; no pixel is void.

    Args:
        class_logits: (N, K + 1).
        mask_logits: (N, H, W), or its rows.

    Returns:
        (H, W) int64 in [0, K).
    """
    classes = class_logits.float().softmax(-1)[:, :-1]  # (N, K)
    rows = as_rows(mask_logits)
    semantic_map = torch.empty(rows.shape[1:], dtype=torch.int64, device=rows.device)
    for strip, logits in rows:
        with torch.autocast(rows.device.type, enabled=False):
            labels = most_probable_classes(classes, logits.softmax(dim=0).flatten(1))
        semantic_map[strip] = labels.view_as(semantic_map[strip])
    return semantic_map


def most_probable_classes(classes: Tensor, masks: Tensor) -> Tensor:
    """The class with the highest summed probability, ``(classes.T @ masks).argmax(0)``.

    Many slots of an image are void. The sum is first computed without them. Where their classes could change
    the result, it is computed with all slots.

    Args:
        classes: (N, K) probabilities, without void.
        masks: (N, pixels) softmax over slots.

    Returns:
        (pixels,) int64 in [0, K).
    """
    largest = classes.amax(1)  # (N,)
    is_minor = largest <= MINOR_CLASS_PROBABILITY
    major = (~is_minor).nonzero().flatten()
    scores = classes[major].T @ masks[major]  # (K, pixels)
    best, labels = first_maximum(scores)
    margin = best - scores.scatter_(0, labels[None], -1).amax(0)

    largest_change = (largest * is_minor) @ masks
    unsure = (margin <= largest_change + SUM_ROUNDING).nonzero().flatten()
    labels[unsure] = first_maximum(classes.T @ masks[:, unsure])[1]
    return labels


def first_maximum(values: Tensor) -> Tuple[Tensor, Tensor]:
    """``values.max(dim=0)`` for finite values, in less time on a CPU.

    Args:
        values: (n, ...) with n < 2^15.

    Returns:
        The maximum over n, and the first index of it, both (...).
    """
    maximum = values.amax(0)
    ranks = torch.arange(len(values), 0, -1, dtype=torch.int16, device=values.device)
    ranks = ranks.view(-1, *[1] * maximum.dim())
    return maximum, len(values) - ((values == maximum) * ranks).amax(0).long()
