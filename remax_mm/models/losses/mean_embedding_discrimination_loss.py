"""MaX-DeepLab's instance discrimination: pixels are compared with the mean embedding of each segment."""
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, SlotTargets
from .pixel_sampling import mean_over_nonzero

ABSENT_LOGIT = -99999.0
"""Logit of slots without a segment, which excludes them from the softmax."""


def mean_embedding_contrast(features: Tensor, masks: Tensor, temperature: float) -> Tensor:
    r"""Cross entropy of each pixel's similarities to all segments' mean features, with its segment as target.

    .. math:: \sum_i g_i \Big(\log\sum_k e^{f t_k / \tau} - f t_i / \tau\Big), \quad
              t_i = \frac{\sum_x g_{ix} f_x}{\lVert\sum_x g_{ix} f_x\rVert}

    Args:
        features: (B, D, P) features f of P pixels, unit length.
        masks: (B, N, P) in [0, 1], the share g of each pixel that belongs to each slot; zero for void.
        temperature: tau.

    Returns:
        (B, P), 0 for void pixels. The mean features t include stuff segments.
    """
    means = F.normalize(torch.einsum('bnp,bdp->bnd', masks, features), dim=-1)
    similarity = means @ features / temperature  # (B, N, P)
    absent = masks.sum(-1, keepdim=True) == 0
    log_partition = similarity.masked_fill(absent, ABSENT_LOGIT).logsumexp(dim=1)
    return masks.sum(1) * log_partition - (masks * similarity).sum(1)


@MODELS.register_module()
class MeanEmbeddingDiscriminationLoss(nn.Module):
    """Instance discrimination of MaX-DeepLab (arXiv 2012.00759; deeplab2 model/loss/max_deeplab_loss.py).

    CMT-DeepLab and kMaX-DeepLab compare pixels with pixels: :class:`InstanceDiscriminationLoss`.

    Args:
        num_things_classes: number of thing classes, the first ones. Only their pixels have a loss; stuff
            pixels only contribute to the mean features.
        temperature: tau of the softmax over segments.
        loss_weight: factor on the mean over thing pixels.
    """

    def __init__(self, num_things_classes: int, temperature: float = 0.3, loss_weight: float = 1.0) -> None:
        super().__init__()
        self.num_things_classes = num_things_classes
        self.temperature = temperature
        self.loss_weight = loss_weight

    def forward(self, prediction: MaskPrediction, targets: SlotTargets) -> Tensor:
        """Scalar from pixel features (B, D, h, w)."""
        loss = mean_embedding_contrast(
            prediction.pixel_feature.flatten(2), targets.masks.flatten(2), self.temperature)
        is_thing = (targets.sem_seg < self.num_things_classes) & ~targets.void
        return self.loss_weight * mean_over_nonzero(loss.masked_fill(~is_thing.flatten(1), 0))
