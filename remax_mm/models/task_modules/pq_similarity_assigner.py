"""Matching of segments to mask slots by the similarity that PQ is made of (MaX-DeepLab, Sec. 3.2)."""
from typing import List, Tuple

import numpy as np
import torch
from mmdet.registry import TASK_UTILS
from scipy.optimize import linear_sum_assignment
from torch import Tensor

from remax_mm.structures import MaskPrediction, Match, PanopticTargets, full_precision


def mask_dice(mask_logits: Tensor, masks: Tensor, void: Tensor, mask_void: bool = True) -> Tensor:
    """Dice of every segment with every slot, softmax over the slots.

    Args:
        mask_logits: (B, N, h, w).
        masks: (B, M, h, w) in {0, 1}, zero on void pixels.
        void: (B, h, w) bool.
        mask_void: leave void pixels out of the slots' areas.

    Returns:
        (B, M, N) in [0, 1].
    """
    probability = mask_logits.softmax(dim=1).flatten(2)  # (B, N, h * w)
    masks = masks.flatten(2).to(probability)  # (B, M, h * w)

    counted = (~void).flatten(1).to(probability) if mask_void else torch.ones_like(probability[:, 0])
    slot_area = torch.einsum('bnp,bp->bn', probability, counted)

    intersection = torch.einsum('bmp,bnp->bmn', masks, probability)
    mean_area = (masks.sum(-1)[:, :, None] + slot_area[:, None, :]) / 2
    return intersection / (mean_area + 1e-5)


def class_similarity(class_logits: Tensor, labels: Tensor) -> Tensor:
    """Probability with which every slot predicts the class of every segment.

    Args:
        class_logits: (B, N, K + 1), void takes its part of the softmax.
        labels: (B, M) in [0, K], K where padded (the probability of void, of no meaning).

    Returns:
        (B, M, N) in [0, 1].
    """
    probability = class_logits.softmax(dim=-1).transpose(1, 2)  # (B, K + 1, N)
    return probability.gather(1, labels.unsqueeze(-1).expand(-1, -1, class_logits.shape[1]))


def solve_assignment(similarity: np.ndarray) -> Tuple[np.ndarray, np.ndarray]:
    """Pairs with the largest total similarity, no row and no column used twice.

    Args:
        similarity: (M, N), finite.

    Returns:
        Segments, ascending, and their slots, min(M, N) of each.
    """
    return linear_sum_assignment(similarity, maximize=True)


@TASK_UTILS.register_module()
class PQSimilarityAssigner:
    """One-to-one matching of segments and slots that maximizes the sum of Dice x class probability.

    Follows bytedance/kmax-deeplab, kmax_deeplab/modeling/matcher.py, whose own switch for void pixels has no
    effect.

    Args:
        mask_void: leave void pixels out of the slots' areas.
    """

    def __init__(self, mask_void: bool = True) -> None:
        self.mask_void = mask_void

    @torch.no_grad()
    def assign(self, prediction: MaskPrediction, targets: PanopticTargets) -> List[Match]:
        """Match the un-relaxed masks of one output.

        Args:
            prediction: class and mask logits of any floating type.
            targets: ground truth at the resolution of the mask logits.

        Returns:
            One match per image with min(real segments, N) pairs, similarities in at least float32.

        Raises:
            FloatingPointError: a similarity is not finite.
        """
        with torch.autocast(prediction.mask_logits.device.type, enabled=False):
            mask_sim = mask_dice(
                full_precision(prediction.mask_logits), targets.masks, targets.void, self.mask_void)
            class_sim = class_similarity(full_precision(prediction.class_logits), targets.labels)

        # A single copy to the host: every similarity, and which segments are no padding.
        num_classes = prediction.class_logits.shape[-1] - 1
        is_real = (targets.labels < num_classes).to(mask_sim).unsqueeze(-1)
        on_host = torch.cat([mask_sim, class_sim.to(mask_sim), is_real], dim=-1).cpu().numpy()

        pairs = [_match_image(table, image) for image, table in enumerate(on_host)]
        on_device = torch.as_tensor(np.concatenate(pairs, axis=1), device=mask_sim.device)
        return [
            Match(slot, segment, mask_sim[image, segment, slot], class_sim[image, segment, slot])
            for image, (segment, slot) in enumerate(on_device.split([p.shape[1] for p in pairs], dim=1))
        ]


def _match_image(table: np.ndarray, image: int) -> np.ndarray:
    """Segments and slots (2, P) of one image; ``table`` is (M, 2N + 1): mask, class similarity, real flag."""
    real = np.flatnonzero(table[:, -1])
    mask_sim, class_sim = np.split(table[real, :-1], 2, axis=1)
    for part, values in (('mask', mask_sim), ('class', class_sim)):
        if not np.isfinite(values).all():
            raise FloatingPointError(
                f'Expected finite similarities, but the {part} similarity of image {image} of the '
                f'batch is not: the {part} logits hold NaN or infinity')
    segment, slot = solve_assignment(mask_sim * class_sim)
    return np.stack([real[segment], slot])
