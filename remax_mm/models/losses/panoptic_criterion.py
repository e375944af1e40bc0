"""Training criterion: match segments to slots, relax the targets, compute the losses of every output."""
from typing import Any, Dict, Optional, Sequence, Tuple

import torch
from mmdet.registry import MODELS, TASK_UTILS
from mmengine.config import ConfigDict
from torch import Tensor, nn
from torch.utils.checkpoint import checkpoint

from remax_mm.structures import MaskPrediction, PanopticTargets, SlotTargets, full_precision
from ..layers import keeps_activations, not_compiled, resize_to
from ..task_modules import assign_targets_to_slots
from .softmax_sums import softmax_sums


@MODELS.register_module()
class PanopticCriterion(nn.Module):
    """All losses of a mask transformer, computed from the outputs of its decoder.

    Every output gets the same losses at the resolution of the final output, in float32. The mask losses get
    supervised mask logits of that resolution; the other losses get features and logits of the output's own
    resolution. Two mask losses with ``takes_softmax`` share one softmax over the slots. Follows
    ``SetCriterion`` of bytedance/kmax-deeplab, kmax_deeplab/modeling/criterion.py.

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
        with torch.autocast(targets.owner.device.type, enabled=False):
            # The final output; by default its matching is shared with the other outputs
            final = _to_full_precision(predictions[-1])
            slot_targets = self._assign(final, targets)
            losses = self._panoptic_losses(final, slot_targets)

            # The auxiliary semantic head, and the final output's own one if it has one
            if sem_logits is not None:
                losses['loss_sem'] = self.loss_sem(full_precision(sem_logits), slot_targets)
            if final.sem_logits is not None:
                losses['loss_stage_sem'] = self.loss_stage_sem(final.sem_logits, slot_targets)

            # The other outputs, one at a time
            for stage, prediction in enumerate(predictions[:-1]):
                output = _to_full_precision(prediction)
                if not self.share_final_matching:
                    slot_targets = self._assign(output, targets)
                stage_losses = self._panoptic_losses(output, slot_targets)
                if output.sem_logits is not None:
                    stage_losses['loss_sem'] = self.loss_stage_sem(output.sem_logits, slot_targets)
                losses.update({f'd{stage}.{name}': loss for name, loss in stage_losses.items()})
        return losses

    @not_compiled
    def _assign(self, prediction: MaskPrediction, targets: PanopticTargets) -> SlotTargets:
        with torch.no_grad():
            mask_logits = resize_to(prediction.mask_logits, targets.owner.shape[-2:])
        matches = self.assigner.assign(prediction._replace(mask_logits=mask_logits), targets)
        return assign_targets_to_slots(prediction, targets, matches)

    def _panoptic_losses(self, prediction: MaskPrediction, targets: SlotTargets) -> Dict[str, Tensor]:
        if self.reclass is not None:
            with torch.no_grad():
                mask_logits = resize_to(prediction.mask_logits, targets.owner.shape[-2:])
                class_targets = self.reclass(targets.class_targets, mask_logits, targets.sem_seg)
            targets = targets._replace(class_targets=class_targets)

        # The resized masks take many times the memory of the output's own masks, so they are not kept but
        # computed again for the backward pass, also in compiled code, unlike with recompute_cheap.
        if keeps_activations():
            loss_mask_id, loss_dice = self._mask_losses(prediction, targets)
        else:
            loss_mask_id, loss_dice = checkpoint(self._mask_losses, prediction, targets, use_reentrant=False)
        losses = dict(
            loss_cls=self.loss_cls(prediction, targets), loss_mask_id=loss_mask_id, loss_dice=loss_dice)
        if self.loss_insdis is not None:
            losses['loss_insdis'] = self.loss_insdis(prediction, targets)
        return losses

    def _mask_losses(self, prediction: MaskPrediction, targets: SlotTargets) -> Tuple[Tensor, Tensor]:
        """Mask-ID loss and Dice loss of a prediction of any resolution."""
        mask_logits = resize_to(prediction.supervised_mask_logits, targets.owner.shape[-2:])
        supervised = 'mask_logits' if prediction.relaxed_mask_logits is None else 'relaxed_mask_logits'
        inputs: Tuple[Any, ...] = (prediction._replace(**{supervised: mask_logits}), targets)
        if all(getattr(loss, 'takes_softmax', False) for loss in (self.loss_mask_id, self.loss_dice)):
            inputs += (softmax_sums(mask_logits, targets), )
        return self.loss_mask_id(*inputs), self.loss_dice(*inputs)

    def _check_inputs(self, predictions: Sequence[MaskPrediction], targets: PanopticTargets,
                      sem_logits: Optional[Tensor]) -> None:
        final_size, target_size = predictions[-1].mask_logits.shape[-2:], targets.owner.shape[-2:]
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


def _to_full_precision(prediction: MaskPrediction) -> MaskPrediction:
    parts = prediction._asdict().items()
    return prediction._replace(**{name: full_precision(part) for name, part in parts if part is not None})
