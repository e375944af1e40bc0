"""What a host needs to merge masks, computed in the graph without an array (N, H, W).

The operators are those that ONNX Runtime and TensorRT have: strips of rows are unrolled, not a loop.
"""
import math
from typing import Callable, List, NamedTuple, Optional, Sequence, Tuple

import torch
from torch import Tensor

NUM_STRIPS = 16
"""Strips of rows; mask logits at full size exist for one strip at a time."""
MAX_OUTPUT_SIDE = 2**14
"""Maximum height and width of the result: the number of its pixels fits an int32."""
Select = Callable[[Tensor], Tuple[Tensor, Tensor]]
NO_LOGIT = -1e9
"""Replaces the logits of slots that do not compete."""


class SlotOutputs(NamedTuple):
    """Outputs of a graph from which a host merges the masks; their names are those in the ONNX file.

    Attributes:
        slots: (B, k, H, W) int32 in [0, N), the k most probable slots of a pixel, the most probable first;
            k is 2 for mask-wise and 1 for pixel-wise merging.
        probabilities: (B, k, H, W) float32 in [0, 1], of these slots.
        classes: (B, N) int32 in [0, K), the most probable class of a slot.
        class_scores: (B, N) float32, its probability.
        areas: (B, N) int32, number of pixels that belong to a slot.
        mask_scores: (B, N) float32, mean probability of these pixels; 0 without pixels.
        overlaps: (B, N, N) int32, number of pixels that belong to two slots, 0 on the diagonal; None for
            pixel-wise merging.
    """
    slots: Tensor
    probabilities: Tensor
    classes: Tensor
    class_scores: Tensor
    areas: Tensor
    mask_scores: Tensor
    overlaps: Optional[Tensor] = None


def mask_wise_outputs(class_logits: Tensor, mask_logits: Tensor, input_size: Sequence[int],
                      image_size: Sequence[int], output_size: Tensor, pixel_threshold: float) -> SlotOutputs:
    """Inputs of the merging of :func:`fuse_panoptic`, for a threshold of which two slots can exceed at most.

    Args:
        class_logits: (B, N, K + 1), void last.
        mask_logits: (B, N, h, w).
        input_size: (height, width) of the padded network input.
        image_size: of the images in it, at the top left.
        output_size: (2,) int64, height and width of the result.
        pixel_threshold: softmax over slots that the pixels of a slot exceed.
    """

    def select(logits: Tensor) -> Tuple[Tensor, Tensor]:
        """The two best slots of each pixel and their softmax over all slots."""
        best, slots = logits.topk(2, dim=-1)
        above = best - best[..., :1]
        return slots, above.exp() / (logits - best[..., :1]).exp().sum(-1, keepdim=True)

    classes, class_scores = best_classes(class_logits)
    slots, probabilities = select_slots(mask_logits, input_size, image_size, output_size, select)
    is_own = probabilities > pixel_threshold
    areas, mask_scores = slot_statistics(slots, probabilities, is_own, classes.shape[1])

    # Count the pairs of slots that share a pixel.
    num_slots = classes.shape[1]
    pairs = (slots[:, 0] * num_slots + slots[:, 1]).flatten(1)
    counts = torch.zeros(slots.shape[0], num_slots**2, dtype=torch.int32, device=slots.device)
    counts = counts.scatter_add(1, pairs, is_own.all(1).flatten(1).int())
    counts = counts.unflatten(1, (num_slots, num_slots))
    return SlotOutputs(slots.int(), probabilities, classes.int(), class_scores, areas, mask_scores,
                       counts + counts.transpose(1, 2))


def pixel_wise_outputs(class_logits: Tensor, mask_logits: Tensor, input_size: Sequence[int],
                       image_size: Sequence[int], output_size: Tensor, class_threshold: float,
                       pixel_threshold: float) -> SlotOutputs:
    """Inputs of the merging of :func:`fuse_panoptic_pixelwise`.

    The probability of a pixel is 0 if its slot with the highest logit is not confident of its class.

    Args:
        class_threshold: class probability that a slot must reach to compete in the softmax.
        others: see :func:`mask_wise_outputs`.
    """
    classes, class_scores = best_classes(class_logits)
    kept = (class_scores >= class_threshold)[:, None, None]  # (B, 1, 1, N)

    def select(logits: Tensor) -> Tuple[Tensor, Tensor]:
        """The best confident slot of each pixel and its softmax over the confident slots."""
        kept_logits = torch.where(kept, logits, NO_LOGIT)
        best, slots = kept_logits.max(-1, keepdim=True)
        probabilities = 1 / (kept_logits - best).exp().sum(-1, keepdim=True)
        return slots, torch.where(best >= logits.amax(-1, keepdim=True), probabilities, 0.0)

    slots, probabilities = select_slots(mask_logits, input_size, image_size, output_size, select)
    is_own = probabilities > pixel_threshold
    areas, mask_scores = slot_statistics(slots, probabilities, is_own, classes.shape[1])
    return SlotOutputs(slots.int(), probabilities, classes.int(), class_scores, areas, mask_scores)


def best_classes(class_logits: Tensor) -> Tuple[Tensor, Tensor]:
    """The most probable class other than void of each slot (B, N) int64, and its probability (B, N)."""
    scores, classes = class_logits.float().softmax(-1)[..., :-1].max(-1)
    return classes, scores


def select_slots(mask_logits: Tensor, input_size: Sequence[int], image_size: Sequence[int],
                 output_size: Tensor, select: Select) -> Tuple[Tensor, Tensor]:
    """Select slots at each pixel of the result, in strips of rows.

    Mask logits are resized as by :func:`restored_rows`. Linear interpolation is a product with a matrix for
    the columns and one for the rows. A strip needs only a window of the rows of the mask logits.

    Args:
        select: takes logits (B, rows, W, N) and returns slots (B, rows, W, k) int64 and their probabilities.
        others: see :func:`mask_wise_outputs`.

    Returns:
        Slots (B, k, H, W) int64, and their probabilities.
    """
    batch_size, num_slots, mask_height, mask_width = mask_logits.shape
    columns = resized_positions(mask_width, input_size[1], image_size[1], output_size[1])
    rows = resized_positions(mask_height, input_size[0], image_size[0], output_size[0])
    height, width = rows.lower.shape[0], columns.lower.shape[0]

    # All columns of the result, slots last: (B, h, W * N)
    weights = columns.weights(torch.arange(mask_width))
    by_column = (weights @ mask_logits.float().permute(0, 2, 3, 1)).flatten(2)

    # Strips of equal height; the last ones repeat the last row.
    strip_height = (height + NUM_STRIPS - 1) // NUM_STRIPS
    index = torch.arange(NUM_STRIPS * strip_height).clamp(max=height - 1)
    strips = rows.of(index.view(NUM_STRIPS, strip_height))
    window = window_length(mask_height, input_size[0])
    first = strips.lower[:, :1].long().clamp(max=mask_height - window)
    used = first + torch.arange(window)  # (strips, window) rows of the mask
    weights = strips.weights(used.unsqueeze(1))  # (strips, rows, window)

    parts: List[Tuple[Tensor, Tensor]] = []
    for strip in range(NUM_STRIPS):
        logits = weights[strip] @ by_column.index_select(1, used[strip])
        parts.append(select(logits.view(batch_size, strip_height, width, num_slots)))
    slots, probabilities = (torch.cat(part, dim=1)[:, :height] for part in zip(*parts))
    return slots.permute(0, 3, 1, 2).contiguous(), probabilities.permute(0, 3, 1, 2).contiguous()


class ResizedPositions(NamedTuple):
    """Where the rows (or columns) of a result lie between those of a mask, in units of the mask.

    Each lies between two rows of the image, which lie between two rows of the mask each.

    Attributes:
        lower, upper: (...) float32, the two rows of the image.
        weight: (...) float32, of the upper one.
    """
    lower: Tensor
    upper: Tensor
    weight: Tensor

    def of(self, index: Tensor) -> 'ResizedPositions':
        """The positions with these indices."""
        return ResizedPositions(*(values[index] for values in self))

    def weights(self, rows: Tensor) -> Tensor:
        """Weights (..., R) of some rows (..., R) of the mask."""
        of_lower, of_upper = ((1 - (position.unsqueeze(-1) - rows).abs()).clamp(min=0)
                              for position in (self.lower, self.upper))
        weight = self.weight.unsqueeze(-1)
        return of_lower * (1 - weight) + of_upper * weight


def resized_positions(mask_length: int, input_length: int, image_length: int,
                      output_length: Tensor) -> ResizedPositions:
    """Positions of a result of ``output_length`` rows, a scalar int64.

    The mask is resized to the network input, cropped to the image and resized to the result, always with
    aligned corners.
    """
    length = output_length.item()
    torch._check(length >= 1)  # what an export must know about a length that is an input
    torch._check(length <= MAX_OUTPUT_SIDE)
    scale = (image_length - 1) / (output_length - 1).clamp(min=1).float()
    position = torch.arange(length, dtype=torch.float32) * scale
    lower = position.floor().clamp(max=image_length - 1)
    upper = (lower + 1).clamp(max=image_length - 1)
    factor = (mask_length - 1) / max(input_length - 1, 1)
    return ResizedPositions(lower * factor, upper * factor, position - lower)


def window_length(mask_height: int, input_height: int) -> int:
    """Number of mask rows from which any strip of the result is interpolated.

    A strip of more than one row has at most 1 / 16 of the image between its first and last row, and 1 / 16 of
    that for rounding up; two neighboring rows of the image and of the mask are added.
    """
    span = (mask_height - 1) / NUM_STRIPS * (1 + 1 / NUM_STRIPS)
    between_rows = (mask_height - 1) / max(input_height - 1, 1)
    return min(math.ceil(span + between_rows) + 2, mask_height)


def slot_statistics(slots: Tensor, probabilities: Tensor, is_own: Tensor,
                    num_slots: int) -> Tuple[Tensor, Tensor]:
    """Area (B, N) int32 and mean probability (B, N) of the pixels that belong to each slot.

    Sums are made for each row first, which keeps them accurate in float32.

    Args:
        slots, probabilities: (B, k, H, W).
        is_own: (B, k, H, W) bool, whether the pixel belongs to the slot.
    """
    by_row = [values.transpose(1, 2).flatten(2) for values in (slots, probabilities, is_own)]  # (B, H, k * W)
    zeros = torch.zeros(*by_row[0].shape[:2], num_slots, device=slots.device)
    areas = zeros.scatter_add(2, by_row[0], by_row[2].float()).sum(1)
    sums = zeros.scatter_add(2, by_row[0], by_row[1] * by_row[2]).sum(1)
    return areas.int(), sums / areas.clamp(min=1)
