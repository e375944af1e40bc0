"""The criterion once more, with a mask for each segment and plain autograd: what the package's must equal.

It is slow and large, but each line is a formula. Segments may overlap, as in the public kMaX-DeepLab code,
whose numbers it reproduces (``tests/models/losses/test_dense_criterion.py``).
"""
from types import SimpleNamespace
from typing import Any, Dict, NamedTuple, Optional, Sequence

import torch
import torch.nn.functional as F
from scipy.optimize import linear_sum_assignment
from torch import Tensor, nn

from remax_mm.models.losses import PanopticCriterion, SigmoidMaskIDLoss
from remax_mm.structures import MaskPrediction, PanopticTargets

MIN_WEIGHT = 1e-5


class DenseTargets(NamedTuple):
    """Masks (B, M, h, w) in {0, 1}, labels (B, M) padded with K, void and classes (B, h, w), K for void."""
    masks: Tensor
    labels: Tensor
    void: Tensor
    sem_seg: Tensor


class DenseSlots(NamedTuple):
    """By slot: masks (B, N, h, w) in [0, 1], class targets (B, N, K + 1), weights (B, N); area (B, h, w)."""
    masks: Tensor
    class_targets: Tensor
    class_weights: Tensor
    mask_weights: Tensor
    void: Tensor
    pixel_area: Tensor


def masks_of(owner: Tensor, num_owners: int, dtype: torch.dtype) -> Tensor:
    """Masks (B, num_owners, h, w) of a map (B, h, w) of owners in [0, num_owners], the last one for void."""
    return torch.stack([owner == index for index in range(num_owners)], dim=1).to(dtype)


def to_dense(targets: PanopticTargets, dtype: torch.dtype) -> DenseTargets:
    masks = masks_of(targets.owner, targets.labels.shape[1], dtype)
    return DenseTargets(masks, targets.labels, masks.sum(1) == 0, targets.sem_seg)


def dense_slots(prediction: MaskPrediction, targets: DenseTargets) -> DenseSlots:
    """Match segments with slots, image by image, and bring the targets into the order of the slots."""
    num_classes = prediction.class_logits.shape[-1] - 1
    images = []
    for image in range(len(targets.masks)):
        probability = prediction.mask_logits[image].softmax(0)  # (N, h, w)
        real = targets.labels[image] < num_classes
        masks, labels = targets.masks[image, real], targets.labels[image, real]
        valid = (~targets.void[image]).to(masks)
        areas = masks.sum((1, 2))[:, None] + (probability * valid).sum((1, 2))
        dice = 2 * torch.einsum('mhw,nhw->mn', masks, probability) / (areas + 2e-5)
        of_class = prediction.class_logits[image].softmax(-1)[:, labels].T  # (M, N)
        segment, slot = linear_sum_assignment((dice * of_class).cpu(), maximize=True)

        covering = masks[segment].sum(0)  # matched segments at each pixel
        slot_masks, void = torch.zeros_like(probability), covering == 0
        slot_masks[slot] = masks[segment] / covering.clamp(min=1)
        class_targets = torch.zeros_like(prediction.class_logits[image])
        class_targets[:, -1] = 1
        class_targets[slot, -1] = 0
        class_targets[slot, labels[segment]] = 1
        class_weights = (probability * void).sum((1, 2)) / (probability.sum((1, 2)) + 1e-5)
        class_weights[slot] = dice[segment, slot]
        mask_weights = torch.zeros_like(class_weights)
        mask_weights[slot] = of_class[segment, slot].clamp(min=MIN_WEIGHT)
        pixel_area = torch.einsum('nhw,n->hw', slot_masks, slot_masks.sum((1, 2)))
        images.append(
            DenseSlots(slot_masks, class_targets, class_weights.clamp(min=MIN_WEIGHT), mask_weights, void,
                       pixel_area))
    return DenseSlots(*(torch.stack(part) for part in zip(*images)))


def mean_over_nonzero(loss: Tensor) -> Tensor:
    """Of (B, X): over the nonzero losses of each image, then over the images."""
    return torch.stack([row.sum() / max(int((row != 0).sum()), 1) for row in loss]).mean()


def class_loss(class_logits: Tensor, targets: DenseSlots) -> Tensor:
    cross_entropy = -(targets.class_targets * class_logits.log_softmax(-1)).sum(-1)
    balance = torch.where(targets.class_targets[..., -1] == 1, 0.25, 0.75)
    return mean_over_nonzero(balance * targets.class_weights * cross_entropy)


def mask_id_loss(mask_logits: Tensor, targets: DenseSlots, sigmoid: bool) -> Tensor:
    if not sigmoid:
        loss = -(targets.masks * mask_logits.log_softmax(1)).sum(1)
        return mean_over_nonzero(loss.masked_fill(targets.void, 0).flatten(1))
    loss = F.binary_cross_entropy_with_logits(mask_logits, targets.masks, reduction='none').sum(1)
    num_pixels = (~targets.void).sum((1, 2)).clamp(min=1)
    return (loss.masked_fill(targets.void, 0).sum((1, 2)) / num_pixels).mean()


def mask_loss(mask_logits: Tensor, targets: DenseSlots) -> Tensor:
    masks = mask_logits.softmax(1) * ~targets.void[:, None]
    intersection = (masks * targets.masks).sum((2, 3))
    dice = (2 * intersection + 1) / (masks.sum((2, 3)) + targets.masks.sum((2, 3)) + 1)
    return 0.75 * (targets.mask_weights * (1 - dice)).mean(1).mean()


def discrimination_loss(pixel_feature: Tensor, targets: DenseSlots, pixels: Optional[Tensor]) -> Tensor:
    features, masks = pixel_feature.flatten(2), targets.masks.flatten(2)
    if pixels is not None:
        features, masks = (
            torch.stack([values[:, index] for values, index in zip(part, pixels)])
            for part in (features, masks))
    same = torch.einsum('bni,bnj->bij', masks, masks)
    log_softmax = (torch.einsum('bdi,bdj->bij', features, features) / 0.3).log_softmax(-1)
    return mean_over_nonzero(-(same * log_softmax).sum(-1) / same.sum(-1).clamp(min=1))


def semantic_loss(sem_logits: Tensor, sem_seg: Tensor, num_classes: int, pixels: Optional[Tensor]) -> Tensor:
    logits, labels = sem_logits.flatten(2), sem_seg.flatten(1)
    if pixels is not None:
        logits = torch.stack([values[:, index] for values, index in zip(logits, pixels)])
        labels = labels.gather(1, pixels)
    return mean_over_nonzero(F.cross_entropy(logits, labels, ignore_index=num_classes, reduction='none'))


def relaxed_class_targets(class_targets: Tensor, mask_logits: Tensor, sem_seg: Tensor,
                          smoothing: float) -> Tensor:
    """Eq. 3 and 4 of ReMaX."""
    relaxed = class_targets.clone()
    for label in range(class_targets.shape[-1] - 1):
        is_class = (sem_seg == label)[:, None]
        coverage = (mask_logits.sigmoid() * is_class).sum((2, 3)) / is_class.sum((2, 3)).clamp(min=1)
        relaxed[..., label] += smoothing * coverage * (1 - class_targets[..., label])
    return relaxed


class DenseCriterion(nn.Module):
    """All losses with the settings of a criterion of the package, whose samplers and weights it uses."""

    def __init__(self, criterion: PanopticCriterion) -> None:
        super().__init__()
        self.settings = criterion

    def forward(self,
                predictions: Sequence[MaskPrediction],
                targets: PanopticTargets,
                sem_logits: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Arguments and result as of ``PanopticCriterion``."""
        return self.dense_forward(predictions, to_dense(targets, predictions[-1].mask_logits.dtype),
                                  sem_logits)

    def dense_forward(self,
                      predictions: Sequence[MaskPrediction],
                      targets: DenseTargets,
                      sem_logits: Optional[Tensor] = None) -> Dict[str, Tensor]:
        *stages, final = (self._resize(prediction, targets.void.shape[-2:]) for prediction in predictions)
        slots = self._slots(final, targets)
        losses = self._panoptic_losses(final, slots, targets)
        if sem_logits is not None:
            losses['loss_sem'] = self._semantic_loss(self.settings.loss_sem, sem_logits, slots, targets)
        for stage, prediction in enumerate(stages):
            if not self.settings.share_final_matching:
                slots = self._slots(prediction, targets)
            terms = self._panoptic_losses(prediction, slots, targets)
            if prediction.sem_logits is not None:
                terms['loss_sem'] = self._semantic_loss(self.settings.loss_stage_sem, prediction.sem_logits,
                                                        slots, targets)
            losses.update({f'd{stage}.{name}': loss for name, loss in terms.items()})
        return losses

    @staticmethod
    def _resize(prediction: MaskPrediction, size: Sequence[int]) -> MaskPrediction:
        return prediction._replace(
            **{
                name: F.interpolate(
                    getattr(prediction, name), size=size, mode='bilinear', align_corners=True)
                for name in ('mask_logits', 'pixel_feature', 'relaxed_mask_logits')
                if getattr(prediction, name) is not None
            })

    @staticmethod
    @torch.no_grad()
    def _slots(prediction: MaskPrediction, targets: DenseTargets) -> DenseSlots:
        return dense_slots(prediction, targets)

    def _panoptic_losses(self, prediction: MaskPrediction, slots: DenseSlots,
                         targets: DenseTargets) -> Dict[str, Tensor]:
        settings = self.settings
        if settings.reclass is not None:
            relaxed = relaxed_class_targets(slots.class_targets, prediction.mask_logits.detach(),
                                            targets.sem_seg, settings.reclass.smoothing)
            slots = slots._replace(class_targets=relaxed)
        masks = prediction.supervised_mask_logits
        sigmoid = isinstance(settings.loss_mask_id, SigmoidMaskIDLoss)
        losses = dict(
            loss_cls=settings.loss_cls.loss_weight * class_loss(prediction.class_logits, slots),
            loss_mask_id=settings.loss_mask_id.loss_weight * mask_id_loss(masks, slots, sigmoid),
            loss_dice=settings.loss_dice.loss_weight * mask_loss(masks, slots))
        if settings.loss_insdis is not None:
            pixels = self._sample(settings.loss_insdis, slots, 1)
            loss = discrimination_loss(prediction.pixel_feature, slots, pixels)
            losses['loss_insdis'] = settings.loss_insdis.loss_weight * loss
        return losses

    def _semantic_loss(self, settings: Any, sem_logits: Tensor, slots: DenseSlots,
                       targets: DenseTargets) -> Tensor:
        stride = (targets.sem_seg.shape[-1] - 1) // (sem_logits.shape[-1] - 1)
        pixels = self._sample(settings, slots, stride)
        num_classes = slots.class_targets.shape[-1] - 1
        sem_seg = targets.sem_seg[:, ::stride, ::stride]
        return settings.loss_weight * semantic_loss(sem_logits, sem_seg, num_classes, pixels)

    @staticmethod
    def _sample(settings: Any, slots: DenseSlots, stride: int) -> Optional[Tensor]:
        inverse_area = slots.void[0].numel() / slots.pixel_area.clamp(min=1)
        void = slots.void[:, ::stride, ::stride]
        return settings.sampler(
            SimpleNamespace(owner=void, void=void, inverse_area=inverse_area[:, ::stride, ::stride]))
