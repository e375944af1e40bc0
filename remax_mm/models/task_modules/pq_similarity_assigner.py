"""Match segments with mask slots by the similarity that PQ consists of (MaX-DeepLab, Sec. 3.2)."""
from typing import List

import numpy as np
import torch
from mmdet.registry import TASK_UTILS
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from remax_mm.structures import MaskPrediction, Match, PanopticTargets, full_precision
from ..layers import sum_by_owner


def mask_overlap(mask_logits: Tensor, owner: Tensor, num_segments: int) -> Tensor:
    """Sum of every slot's probabilities, softmax over the slots, over the pixels of every segment.

    Args:
        mask_logits: (B, N, h, w).
        owner: (B, h, w) int64 in [0, M], M for void pixels.
        num_segments: M.

    Returns:
        (B, N, M + 1), the last column for the void pixels.
    """
    probability = mask_logits.softmax(dim=1).flatten(2)
    return sum_by_owner(probability, owner.flatten(1), num_segments + 1)


def mask_dice(overlap: Tensor, area: Tensor) -> Tensor:
    """Dice of every segment with every slot; void pixels do not count.

    Args:
        overlap: (B, N, M + 1), see :func:`mask_overlap`.
        area: (B, M), pixels of each segment.

    Returns:
        (B, M, N) in [0, 1].
    """
    intersection = overlap[..., :-1].transpose(1, 2)
    mean_area = (area.unsqueeze(2) + intersection.sum(dim=1, keepdim=True)) / 2
    return intersection / (mean_area + 1e-5)


def class_similarity(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Probability that a slot predicts the class of a segment, for all pairs.

    Args:
        class_logits: (B, N, K + 1); the softmax includes void.
        labels: (B, M) in [0, K]. The similarity of padding, label K, has no meaning.

    Returns:
        (B, M, N) in [0, 1].
    """
    probability = class_logits.softmax(dim=-1).transpose(1, 2)  # (B, K + 1, N)
    return probability.gather(1, labels.unsqueeze(-1).expand(-1, -1, class_logits.shape[1]))


@TASK_UTILS.register_module()
class PQSimilarityAssigner:
    """One-to-one matching of segments and slots that maximizes the sum of Dice x class probability.

    Follows bytedance/kmax-deeplab, kmax_deeplab/modeling/matcher.py.
    """

    @torch.no_grad()
    def assign(self, prediction: MaskPrediction, targets: PanopticTargets) -> List[Match]:
        """Match the masks of one output, before relaxation.

        Args:
            prediction: class and mask logits of any floating type.
            targets: ground truth at the resolution of the mask logits.

        Returns:
            One match per image with min(segments without padding, N) pairs, similarities in at least float32.

        Raises:
            FloatingPointError: a similarity is not finite.
        """
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):
            overlap = mask_overlap(
                full_precision(prediction.mask_logits), targets.owner, targets.labels.shape[1])
            mask_sim = mask_dice(overlap, targets.area)
            class_sim = class_similarity(full_precision(prediction.class_logits), targets.labels)

        # All similarities, and which segments are not padding
        num_classes = prediction.class_logits.shape[-1] - 1
        is_segment = (targets.labels < num_classes).to(mask_sim).unsqueeze(-1)
        pairs = self.find_pairs(torch.cat([mask_sim, class_sim.to(mask_sim), is_segment], dim=-1))

        lengths = [part.shape[1] for part in pairs]
        image, segment, slot = torch.as_tensor(np.concatenate(pairs, axis=1), device=mask_sim.device)
        void_ratio = _void_ratio(overlap, image, segment)
        mask_sim, class_sim = mask_sim[image, segment, slot], class_sim[image, segment, slot]
        parts = (part.split(lengths) for part in (slot, segment, mask_sim, class_sim))
        return [Match(*of_image) for of_image in zip(*parts, void_ratio)]

    def find_pairs(self, tables: Tensor) -> List[np.ndarray]:
        """Match the segments and slots of all images on the host, after a single copy to it.

        Args:
            tables: (B, M, 2N + 1), the mask similarities, the class similarities, and 0 for padding or 1.

        Returns:
            The pairs of each image, (3, P): the image, segments in ascending order, and their slots.
        """
        return [_match_image(table, image) for image, table in enumerate(tables.cpu().numpy())]


def _void_ratio(overlap: Tensor, image: Tensor, segment: Tensor) -> Tensor:
    """Fraction (B, N) of each slot's mask outside of the matched segments, from :func:`mask_overlap`."""
    unmatched = overlap.new_ones(len(overlap), overlap.shape[2])
    unmatched[image, segment] = 0
    void_area = (overlap * unmatched.unsqueeze(1)).sum(dim=2)
    return void_area / (overlap.sum(dim=2) + 1e-5)


def _match_image(table: np.ndarray, image: int) -> np.ndarray:
    """Match the segments and slots of one image, each at most once, with the largest total similarity.

    Args:
        table: (M, 2N + 1), one row per segment, see :meth:`PQSimilarityAssigner.find_pairs`.
        image: index in the batch.

    Returns:
        (3, P).
    """
    rows = np.flatnonzero(table[:, -1])
    mask_sim, class_sim = np.split(table[rows, :-1], 2, axis=1)
    for part, values in (('mask', mask_sim), ('class', class_sim)):
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f'Expected finite similarities, but the {part} similarity of image {image} of the '
                f'batch is not finite: the {part} logits have NaN or infinite values')
    row, slot = linear_sum_assignment(mask_sim * class_sim, maximize=True)
    return np.stack([np.full_like(slot, image), rows[row], slot])
