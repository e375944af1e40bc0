"""MaX-DeepLab's instance discrimination: pixels are compared with the mean embedding of each segment."""
import torch.nn.functional as F
from mmdet.registry import MODELS
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, SlotTargets
from ..layers import resize_to, sum_by_owner
from .pixel_sampling import mean_over_nonzero

ABSENT_LOGIT = -99999.0
"""Logit of slots without a segment, which excludes them from the softmax."""


def mean_embedding_contrast(features: Tensor, owner: Tensor, area: Tensor, temperature: float) -> Tensor:
    r"""Cross entropy of each pixel's similarities to all slots' mean features, with its slot as target.

    .. math:: \log\sum_k e^{f_x t_k / \tau} - f_x t_i / \tau, \quad
              t_i = \frac{\sum_{x \in S_i} f_x}{\lVert\sum_{x \in S_i} f_x\rVert}

    Args:
        features: (B, D, P) features f of P pixels, unit length.
        owner: (B, P) int64, the slot i in [0, N) that each pixel belongs to, N for void pixels.
        area: (B, N), pixels of each slot; a slot without pixels is excluded.
        temperature: tau.

    Returns:
        (B, P), 0 for void pixels. The mean features t include stuff segments.
    """
    num_slots = area.shape[1]
    means = F.normalize(sum_by_owner(features, owner, num_slots + 1)[..., :-1], dim=1)  # (B, D, N)
    similarity = means.transpose(1, 2) @ features / temperature  # (B, N, P)
    similarity = similarity.masked_fill((area == 0).unsqueeze(2), ABSENT_LOGIT)
    own = similarity.gather(1, owner.clamp(max=num_slots - 1).unsqueeze(1)).squeeze(1)
    return (similarity.logsumexp(dim=1) - own).masked_fill(owner == num_slots, 0)


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
        """Scalar from pixel features (B, D, h', w') at any resolution."""
        features = resize_to(prediction.pixel_feature, targets.owner.shape[-2:]).flatten(2)
        loss = mean_embedding_contrast(features, targets.owner.flatten(1), targets.area, self.temperature)
        is_thing = (targets.sem_seg < self.num_things_classes) & ~targets.void
        return self.loss_weight * mean_over_nonzero(loss.masked_fill(~is_thing.flatten(1), 0))
