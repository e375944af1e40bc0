r"""The parts of the mask-ID loss for false positives and false negatives (ReMaX, Figs. 1 and 6).

The cross entropy of a slot at a pixel, with target g in [0, 1] and predicted probability p, is

.. math:: -(1 - g) \log(1 - p) - g \log p

The first term is the loss for false positives, the second the loss for false negatives. The paper compares
the sigmoid of each slot with the softmax over the slots as p.
"""
from typing import Dict, Mapping, NamedTuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IMBALANCED = 100
"""The ratio that sigmoid always exceeds according to the paper."""


class LossParts(NamedTuple):
    """The two parts of the mask-ID loss of each image: (B,) float64 each, without the loss weight."""
    false_positive: Tensor
    false_negative: Tensor

    @property
    def ratio(self) -> Tensor:
        """False positives over false negatives; NaN for an image without a labeled pixel."""
        return self.false_positive / self.false_negative


@torch.no_grad()
def split_sigmoid_cross_entropy(mask_logits: Tensor, masks: Tensor, void: Tensor) -> LossParts:
    """Parts of the binary cross entropy, summed over the slots and averaged over the non-void pixels.

    Args:
        mask_logits: (B, N, h, w).
        masks: (B, N, h, w) in [0, 1].
        void: (B, h, w) bool.
    """
    logits, masks = mask_logits.double(), masks.double()
    return _mean_over_pixels(-(1 - masks) * F.logsigmoid(-logits), -masks * F.logsigmoid(logits), void)


@torch.no_grad()
def split_softmax_cross_entropy(mask_logits: Tensor, masks: Tensor, void: Tensor) -> LossParts:
    """Like :func:`split_sigmoid_cross_entropy`, with a softmax over the slots instead of the sigmoid.

    The second part alone is the softmax cross entropy: a false positive has no separate term, it only
    lowers the probability of the right slot. The gradients of a softmax cross entropy sum to 0 at each pixel,
    so measured by gradients both parts would be equal.
    """
    logits, masks = mask_logits.double(), masks.double()
    log_probs = logits.log_softmax(dim=1)

    # log(1 - p): from p if p <= 1/2, from the sum of all other slots if p may round to 1.
    best = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, best, float('-inf')).logsumexp(dim=1, keepdim=True)
    log_others = others - logits.logsumexp(dim=1, keepdim=True)
    log_complements = (-log_probs.exp()).log1p().scatter(1, best, log_others)
    return _mean_over_pixels(-(1 - masks) * log_complements, -masks * log_probs, void)


def summarize_loss_balance(parts: LossParts) -> Dict[str, float]:
    """Statistics over the images with a labeled pixel, NaN if there are none.

    Returns:
        ``images``, their number; the means of ``false_positive`` and ``false_negative``; ``median``,
        ``percentile_5`` and ``percentile_95`` of their ratio; ``share_imbalanced``, the fraction in [0, 1] of
        images with a ratio above 100.
    """
    labeled = ~parts.ratio.isnan()
    ratio, positive, negative = (x[labeled] for x in (parts.ratio, *parts))
    if not labeled.any():
        ratio = positive = negative = torch.full((1, ), float('nan'))
    low, median, high = np.percentile(ratio.cpu().numpy(), [5, 50, 95]).tolist()
    return dict(
        images=int(labeled.sum()),
        false_positive=positive.mean().item(),
        false_negative=negative.mean().item(),
        median=median,
        percentile_5=low,
        percentile_95=high,
        share_imbalanced=(ratio > IMBALANCED).double().mean().item())


def format_loss_balance(runs: Mapping[str, Mapping[str, LossParts]]) -> str:
    """A Markdown table of every output of every run."""
    lines = [
        '| run | output | median FP/FN | 5 % to 95 % of images | images above 100 | FP | FN |',
        '|---|---|---|---|---|---|---|'
    ]
    for run, outputs in runs.items():
        for name, parts in outputs.items():
            summary = summarize_loss_balance(parts)
            lines.append('| {run} | {name} | {median:.3g} | {percentile_5:.3g} to {percentile_95:.3g} | '
                         '{share_imbalanced:.1%} | {false_positive:.3g} | {false_negative:.3g} |'.format(
                             run=run, name=name, **summary))
    return '\n'.join(lines)


def _mean_over_pixels(false_positive: Tensor, false_negative: Tensor, void: Tensor) -> LossParts:
    """Sum (B, N, h, w) over the slots, then mean over the non-void pixels (0 if none)."""
    count = (~void).flatten(1).sum(dim=1).clamp(min=1)
    return LossParts(*(part.sum(dim=1).masked_fill(void, 0).flatten(1).sum(dim=1) / count
                       for part in (false_positive, false_negative)))
