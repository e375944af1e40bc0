"""Training criterion: match segments to slots, relax the targets, compute the losses of every output."""
from typing import Any, Dict, Optional, Sequence

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import ConfigDict
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, PanopticTargets, SlotTargets, full_precision
from ..layers import resize_to
from ..task_modules import assign_targets_to_slots


@MODELS.register_module()
class PanopticCriterion(nn.Module):
    """All losses of a mask transformer, computed from the outputs of its decoder.

    Every output is resized to the resolution of the final output and gets the same losses, in float32.
    Follows ``SetCriterion`` of bytedance/kmax-deeplab, kmax_deeplab/modeling/criterion.py.

    Args:
        assigner: config of the assigner, which matches segments with slots.
        loss_cls: config of the class loss of the slots.
        loss_dice: config of the mask loss of the matched slots.
        loss_mask_id: config of the mask-ID loss.
        loss_insdis: config of the instance discrimination loss of the pixel feature, or None.
        loss_sem: config of the loss of the auxiliary semantic head, None if there is no such head.
        loss_stage_sem: config of the loss of ReMask's semantic heads, None if there are none.
        reclass: config of ReClass; None for one-hot class targets.
        share_final_matching: whether only the final output is matched and all outputs get its targets and
            weights. Otherwise each output is matched separately, before relaxation.
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
            sem_logits: (B, C, h', w'), C >= K, of the auxiliary semantic head, at the resolution of the
                targets or a stride of it.

        Returns:
            Scalars ``loss_cls``, ``loss_mask_id``, ``loss_dice``, ``loss_insdis`` of the final output, and
            the same with prefix ``d{i}.`` for output i; ``loss_sem`` of the auxiliary semantic head;
            ``d{i}.loss_sem`` of the semantic head of output i, ``loss_stage_sem`` of that of the final
            output.

        Raises:
            ValueError: the resolutions differ, or only one of semantic logits and their loss is given.
        """
        self._check_inputs(predictions, targets, sem_logits)
        with torch.autocast(targets.masks.device.type, enabled=False):
            # The final output; by default its matching is shared with the other outputs
            final = _to_resolution(predictions[-1], targets.masks.shape[-2:])
            slot_targets = self._assign(final, targets)
            losses = self._panoptic_losses(final, slot_targets)

            # The auxiliary semantic head, and the final output's own one if it has one
            if sem_logits is not None:
                losses['loss_sem'] = self.loss_sem(full_precision(sem_logits), slot_targets)
            if final.sem_logits is not None:
                losses['loss_stage_sem'] = self.loss_stage_sem(final.sem_logits, slot_targets)

            # The other outputs, one at a time
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
        semantic_losses = (
            ('loss_sem', self.loss_sem, 'the auxiliary semantic head', sem_logits is not None),
            ('loss_stage_sem', self.loss_stage_sem, 'decoder stages',
             any(prediction.sem_logits is not None for prediction in predictions)),
        )
        for name, loss, source, has_logits in semantic_losses:
            if (loss is not None) != has_logits:
                missing = f'`{name}` is' if loss is None else 'the logits are'
                raise ValueError(
                    f'Expected `{name}` and semantic logits of {source} together, but {missing} missing')


def _build_optional(config: Optional[ConfigDict]) -> Any:
    return None if config is None else MODELS.build(config)


def _to_resolution(prediction: MaskPrediction, size: Sequence[int]) -> MaskPrediction:
    """Resize masks and pixel feature to ``size`` and convert all parts to at least float32.

    Class and semantic logits keep their size. The resized feature is not normalized again, so that it may be
    shorter than 1 (as in the reference).
    """
    relaxed, sem_logits = prediction.relaxed_mask_logits, prediction.sem_logits
    return MaskPrediction(
        class_logits=full_precision(prediction.class_logits),
        mask_logits=resize_to(full_precision(prediction.mask_logits), size),
        pixel_feature=resize_to(full_precision(prediction.pixel_feature), size),
        relaxed_mask_logits=None if relaxed is None else resize_to(full_precision(relaxed), size),
        sem_logits=None if sem_logits is None else full_precision(sem_logits))
