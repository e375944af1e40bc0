"""The conductor of training: match, relax, and hold every output of the decoder against the ground truth."""
from typing import Dict, Optional, Sequence

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import ConfigDict
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, PanopticTargets, SlotTargets, full_precision
from ..layers import resize_to
from ..task_modules import assign_targets_to_slots


@MODELS.register_module()
class PanopticCriterion(nn.Module):
    """All losses of a mask transformer, from the outputs of its decoder.

    Every output is brought to the final one's resolution and gets the same losses, in float32. Follows
    ``SetCriterion`` of bytedance/kmax-deeplab, kmax_deeplab/modeling/criterion.py.

    Args:
        assigner: config of the assigner of segments to slots.
        loss_cls: config of the class loss of the slots.
        loss_dice: config of the mask loss of matched slots.
        loss_mask_id: config of the loss on which slot a pixel belongs to.
        loss_insdis: config of the loss on the pixel feature; None for none.
        loss_sem: config of the loss of the auxiliary semantic head; None for no such head.
        loss_stage_sem: config of the loss of the outputs' own semantic heads, those of ReMask; None for none.
        reclass: config of ReClass; None for one-hot class targets.
        share_final_matching: match the final output only and hold all others against the same targets and
            weights. Otherwise each output is matched, without relaxation, for itself.
    """

    def __init__(self,
                 assigner: ConfigDict,
                 loss_cls: ConfigDict,
                 loss_dice: ConfigDict,
                 loss_mask_id: ConfigDict,
                 loss_insdis: Optional[ConfigDict] = None,
                 loss_sem: Optional[ConfigDict] = None,
                 loss_stage_sem: Optional[ConfigDict] = None,
                 reclass: Optional[ConfigDict] = None,
                 share_final_matching: bool = True) -> None:
        super().__init__()
        self.assigner = TASK_UTILS.build(assigner)
        self.loss_cls = MODELS.build(loss_cls)
        self.loss_dice = MODELS.build(loss_dice)
        self.loss_mask_id = MODELS.build(loss_mask_id)
        self.loss_insdis = _build_optional(loss_insdis)
        self.loss_sem = _build_optional(loss_sem)
        self.loss_stage_sem = _build_optional(loss_stage_sem)
        self.reclass = _build_optional(reclass)
        self.share_final_matching = share_final_matching

    def forward(self,
                predictions: Sequence[MaskPrediction],
                targets: PanopticTargets,
                sem_logits: Optional[Tensor] = None) -> Dict[str, Tensor]:
        """Weighted losses of a batch.

        Args:
            predictions: outputs of the decoder at any resolution, the final one last.
            targets: ground truth at the resolution of the final output.
            sem_logits: (B, C, h', w'), C >= K, of the auxiliary semantic head, at the targets' resolution or
                a stride of it.

        Returns:
            Scalars ``loss_cls``, ``loss_mask_id``, ``loss_dice``, ``loss_insdis`` and ``loss_sem`` of the
            final output, and the same with prefix ``d{i}.`` of output i, ``d{i}.loss_sem`` being that of
            the stage's own semantic head; that of the final output, if it has one, is ``loss_stage_sem``.

        Raises:
            ValueError: resolutions differ, or semantic logits and their loss do not come together.
        """
        self._check_inputs(predictions, targets, sem_logits)
        with torch.autocast(targets.masks.device.type, enabled=False):
            # The final output, which the matching comes from
            final = _to_resolution(predictions[-1], targets.masks.shape[-2:])
            slot_targets = self._assign(final, targets)
            losses = self._panoptic_losses(final, slot_targets)

            # The auxiliary semantic head, once, and the final output's own where it is relaxed
            if self.loss_sem is not None:
                losses['loss_sem'] = self.loss_sem(full_precision(sem_logits), slot_targets)
            if final.sem_logits is not None:
                losses['loss_stage_sem'] = self.loss_stage_sem(final.sem_logits, slot_targets)

            # The stages before, one at a time
            for stage, prediction in enumerate(predictions[:-1]):
                output = _to_resolution(prediction, targets.masks.shape[-2:])
                if not self.share_final_matching:
                    slot_targets = self._assign(output, targets)
                stage_losses = self._panoptic_losses(output, slot_targets)
                if output.sem_logits is not None:
                    stage_losses['loss_sem'] = self.loss_stage_sem(output.sem_logits, slot_targets)
                losses.update({f'd{stage}.{name}': loss for name, loss in stage_losses.items()})
        return losses

    def _assign(self, prediction: MaskPrediction, targets: PanopticTargets) -> SlotTargets:
        return assign_targets_to_slots(prediction, targets, self.assigner.assign(prediction, targets))

    def _panoptic_losses(self, prediction: MaskPrediction, targets: SlotTargets) -> Dict[str, Tensor]:
        if self.reclass is not None:
            class_targets = self.reclass(targets.class_targets, prediction.mask_logits, targets.sem_seg)
            targets = targets._replace(class_targets=class_targets)
        losses = dict(
            loss_cls=self.loss_cls(prediction, targets),
            loss_mask_id=self.loss_mask_id(prediction, targets),
            loss_dice=self.loss_dice(prediction, targets))
        if self.loss_insdis is not None:
            losses['loss_insdis'] = self.loss_insdis(prediction, targets)
        return losses

    def _check_inputs(self, predictions: Sequence[MaskPrediction], targets: PanopticTargets,
                      sem_logits: Optional[Tensor]) -> None:
        final_size, target_size = predictions[-1].mask_logits.shape[-2:], targets.masks.shape[-2:]
        if final_size != target_size:
            raise ValueError('Expected the targets at the resolution of the final masks, '
                             f'{tuple(final_size)}, but got {tuple(target_size)}')
        if (self.loss_sem is None) != (sem_logits is None):
            raise ValueError(
                'Expected `loss_sem` and the logits of the auxiliary semantic head together, but ' +
                _which_is_missing(self.loss_sem, '`loss_sem` is', 'the logits are'))
        if (self.loss_stage_sem is not None) != any(p.sem_logits is not None for p in predictions):
            raise ValueError(
                'Expected `loss_stage_sem` and semantic logits of decoder stages together, but ' +
                _which_is_missing(self.loss_stage_sem, '`loss_stage_sem` is', 'the logits are'))


def _build_optional(config: Optional[ConfigDict]) -> Optional[nn.Module]:
    return None if config is None else MODELS.build(config)


def _which_is_missing(loss: Optional[nn.Module], loss_is: str, logits_are: str) -> str:
    return f'{loss_is if loss is None else logits_are} missing'


def _to_resolution(prediction: MaskPrediction, size: torch.Size) -> MaskPrediction:
    """Class and semantic logits as they are, masks and pixel feature at ``size``, all in float32 or more.

    The feature is not normalized again, so that it may be shorter than 1 (as in the reference).
    """
    prediction = MaskPrediction(*(None if part is None else full_precision(part) for part in prediction))
    relaxed = prediction.relaxed_mask_logits
    return prediction._replace(
        mask_logits=resize_to(prediction.mask_logits, size),
        pixel_feature=resize_to(prediction.pixel_feature, size),
        relaxed_mask_logits=None if relaxed is None else resize_to(relaxed, size))
