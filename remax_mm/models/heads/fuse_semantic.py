"""Fusion of mask slots into a semantic map."""
from typing import NamedTuple, Tuple, Union

import torch
from torch import Tensor

from .mask_rows import MaskRows, as_rows

MINOR_PROBABILITY = 0.02
"""Slots without a class that is more probable, and classes without such a slot, rarely decide a pixel."""
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
    major = find_major(classes)
    rows = as_rows(mask_logits)
    semantic_map = torch.empty(rows.shape[1:], dtype=torch.int64, device=rows.device)
    for strip, logits in rows:
        with torch.autocast(rows.device.type, enabled=False):
            labels = most_probable_classes(classes, logits.softmax(dim=0).flatten(1), major)
        semantic_map[strip] = labels.view_as(semantic_map[strip])
    return semantic_map


class Major(NamedTuple):
    """The slots and classes that decide at most pixels.

    Attributes:
        slots: (n,) indices of slots.
        classes: (k,) indices of classes.
        probabilities: (k, n).
        largest_other: the largest probability of the other slots and of the other classes, 0-dimensional.
    """
    slots: Tensor
    classes: Tensor
    probabilities: Tensor
    largest_other: Tensor


def find_major(classes: Tensor) -> Major:
    """The slots and classes with a probability above ``MINOR_PROBABILITY``, at least one of each.

    Args:
        classes: (N, K) probabilities, without void.
    """
    is_major = classes >= classes.max().clamp(max=MINOR_PROBABILITY)
    slots, columns = is_major.any(1), is_major.any(0)
    largest_other = classes.masked_fill(slots[:, None] & columns, 0).max()
    slots, columns = slots.nonzero().flatten(), columns.nonzero().flatten()
    return Major(slots, columns, classes[slots][:, columns].T.contiguous(), largest_other)


def most_probable_classes(classes: Tensor, masks: Tensor, major: Major) -> Tensor:
    """The class with the highest summed probability, ``(classes.T @ masks).argmax(0)``.

    Many slots of an image are void, and many classes are not in it. The sum is first computed without them.
    Where they could change the result, it is computed with all slots and classes.

    Args:
        classes: (N, K) probabilities, without void.
        masks: (N, pixels) softmax over slots.
        major: see :func:`find_major`.

    Returns:
        (pixels,) int64 in [0, K).
    """
    major_masks = masks.index_select(0, major.slots)
    scores = major.probabilities @ major_masks  # (k, pixels)
    best, indices = first_maximum(scores)
    labels = major.classes.index_select(0, indices)
    second = scores.scatter_(0, indices[None], -1).amax(0)

    # The other slots add at most this to a class, and the sum of another class is at most `largest_other`.
    largest_change = major.largest_other * (1 - major_masks.sum(0))
    limit = torch.maximum(second + largest_change, major.largest_other)
    unsure = (best <= limit + SUM_ROUNDING).nonzero().flatten()
    labels[unsure] = first_maximum(classes.T @ masks.index_select(1, unsure))[1]
    return labels


def first_maximum(values: Tensor) -> Tuple[Tensor, Tensor]:
    """``values.max(dim=0)`` for finite values, in less time on a CPU.

    Args:
        values: (n, ...) float32 with n < 2^24.

    Returns:
        The maximum over n, and the first index of it, both (...).
    """
    maximum = values.amax(0)
    ranks = torch.arange(len(values), 0, -1, dtype=values.dtype, device=values.device)
    # As a number, because a CPU takes longer for bool
    is_maximum = torch.eq(values, maximum, out=torch.empty_like(values))
    ranks = ranks.view(-1, *[1] * maximum.dim())
    return maximum, len(values) - is_maximum.mul_(ranks).amax(0).long()
