r"""How the mask-ID loss divides into false positives and false negatives (ReMaX, Figs. 1 and 6).

With a target share g of a pixel for a slot that claims it with probability p, the cross entropy of the two is

.. math:: -(1 - g) \log(1 - p) - g \log p

whose first term is paid for claiming too much, a false positive, and whose second for claiming too little, a
false negative. The paper compares p of a sigmoid of each slot with p of a softmax over the slots.
"""
import math
from typing import Dict, Mapping, NamedTuple, Sequence

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

IMBALANCED = 100
"""The ratio that the paper says sigmoid always exceeds."""


class LossParts(NamedTuple):
    """The two parts of the mask-ID loss of each image: (B,), float64, before the loss weight."""
    false_positive: Tensor
    false_negative: Tensor

    @property
    def ratio(self) -> Tensor:
        """False positives over false negatives; NaN for an image without a labeled pixel."""
        return self.false_positive / self.false_negative


@torch.no_grad()
def split_sigmoid_cross_entropy(mask_logits: Tensor, masks: Tensor, void: Tensor) -> LossParts:
    """Parts whose sum is the binary cross entropy over the slots, mean over the non-void pixels.

    Args:
        mask_logits: (B, N, h, w).
        masks: (B, N, h, w) in [0, 1].
        void: (B, h, w) bool.
    """
    logits, masks = mask_logits.double(), masks.double()
    return _mean_over_pixels(-(1 - masks) * F.logsigmoid(-logits), -masks * F.logsigmoid(logits), void)


@torch.no_grad()
def split_softmax_cross_entropy(mask_logits: Tensor, masks: Tensor, void: Tensor) -> LossParts:
    """Like :func:`split_sigmoid_cross_entropy`, with a softmax over the slots in place of the sigmoid.

    The second part alone is the softmax cross entropy: slots that claim too much are not charged, they only
    leave less to the right one. By gradient the two would weigh the same at every pixel: the gradients of a
    softmax cross entropy sum to 0.
    """
    logits, masks = mask_logits.double(), masks.double()
    log_claimed = logits.log_softmax(dim=1)

    # log(1 - p): from p where p <= 1/2, from the sum of all other slots where p may round to 1.
    best = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, best, float('-inf')).logsumexp(dim=1, keepdim=True)
    left_to_others = others - logits.logsumexp(dim=1, keepdim=True)
    log_unclaimed = (-log_claimed.exp()).log1p().scatter(1, best, left_to_others)
    return _mean_over_pixels(-(1 - masks) * log_unclaimed, -masks * log_claimed, void)


def summarize_loss_balance(parts: LossParts) -> Dict[str, float]:
    """Numbers for people, over the images with a labeled pixel (NaN where there is none).

    Returns:
        ``images``; means of ``false_positive`` and ``false_negative``; of their ratio, the ``median``,
        the ``percentile_5`` and ``percentile_95``, and the ``share_imbalanced`` of images above 100.
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


def logarithmic_edges(ratios: Sequence[Tensor], bins_per_decade: int = 10) -> np.ndarray:
    """Edges of bins of equal width on a logarithmic scale, from a power of ten to a power of ten, around all.

    Args:
        ratios: (B,) each; only finite ones above 0 count, and 1 where there is none.
    """
    values = torch.cat([ratio.flatten().double().cpu() for ratio in ratios])
    values = values[values.isfinite() & (values > 0)].log10()
    low = math.floor(values.min().item()) if len(values) else 0
    high = max(math.ceil(values.max().item()), low + 1) if len(values) else 1
    return np.logspace(low, high, (high - low) * bins_per_decade + 1)


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
