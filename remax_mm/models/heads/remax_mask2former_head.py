"""ReMask and ReClass (ReMaX, arXiv 2306.17319) on mmdet's own MaskFormer and Mask2Former heads.

The paper names Mask2Former as future work (Appendix D). What its text leaves open, and how it is read here:

- A decoder "layer" is an output of the head other than the last. Those of Mask2Former are the predictions
  before each layer, as in kMaX-DeepLab; those of MaskFormer the predictions after each layer but the last.
  With L decoder layers the first 2 L / 3 outputs are relaxed, and the last one never is.
- All masks of these heads are products with one pixel feature, so one semantic head looks at that feature.
- Matching sees the masks as they are predicted, and so does ReClass.
- ReClass relaxes the targets of matched queries. In kMaX-DeepLab the PQ-style loss all but ignores the other
  slots; here a target beside "no object" would teach unmatched queries to claim what a better one has.
- The masked attention of Mask2Former stays as it is: it asks where a logit is positive, and Eq. 2 of ReMaX
  multiplies by a positive factor. (In kMaX-DeepLab slots compete for a pixel, so there it matters.)
"""
import inspect
from contextlib import contextmanager
from typing import Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence, Tuple

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import Mask2FormerHead, MaskFormerHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, StageContext, full_precision
from ..losses import SoftTargetCrossEntropyLoss
from ..relaxations import build_remask


class RelaxedOutputs(NamedTuple):
    """What a relaxed head holds against the ground truth.

    Attributes:
        predictions: all outputs of the decoder, the final one last.
        sem_logits: (B, C, h, w) of the semantic head; None without one, and in eval.
        gt_instances: of each image ``labels`` (M,) and ``masks`` (M, H, W), as ``preprocess_gt`` gives them.
        sem_seg: (B, h, w) int64, class of each cell of the masks, K where no segment is.
    """
    predictions: List[MaskPrediction]
    sem_logits: Optional[Tensor]
    gt_instances: List[InstanceData]
    sem_seg: Tensor


def nearest_masks(masks: Tensor, size: Tuple[int, int]) -> Tensor:
    """Masks (M, H, W) of any type at ``size`` (h, w), read at the nearest pixel as mmdet's heads do."""
    rows, columns = (torch.arange(wanted, device=masks.device) * full // wanted
                     for wanted, full in zip(size, masks.shape[-2:]))
    return masks[:, rows[:, None], columns]


def semantic_map(gt_instances: InstanceData, size: Tuple[int, int], num_classes: int) -> Tensor:
    """Class of each cell by the segment on it, that of the first one where segments overlap.

    Args:
        gt_instances: ``labels`` (M,) in [0, K) and ``masks`` (M, H, W) in {0, 1}.
        size: (h, w).
        num_classes: K, which stands where no segment is.

    Returns:
        (h, w) int64 in [0, K].
    """
    masks = nearest_masks(gt_instances.masks, size)
    nowhere = masks.new_ones(1, *size)  # comes last, and so counts where no segment is
    owner = torch.cat([masks, nowhere]).byte().argmax(dim=0)
    return F.pad(gt_instances.labels, (0, 1), value=num_classes)[owner]


@contextmanager
def kept_output(module: nn.Module) -> Iterator[List[Any]]:
    """A list of what the module returns, call by call, while the context lasts."""
    outputs: List[Any] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


class RelaxationMixin:
    """Adds the relaxations to mmdet's ``MaskFormerHead`` or a child of it, named behind the mixin.

    Without relaxations the losses are mmdet's, bit for bit; at test the head is mmdet's in any case, and its
    parameters have mmdet's names. Those of ReMask are below ``remask.``.

    Args:
        args, kwargs: those of the head. An unknown one is an error, which mmdet's heads would swallow.
        remask: config of :class:`ReMask`, one for all outputs that are relaxed. Its semantic head gets the
            pixel feature of ``out_channels`` and gives K logits; K + 1 without stuff classes, background
            last.
        num_relaxed: how many outputs, from the first on, are relaxed; None for two thirds of the layers.
        loss_sem: config of the loss of those semantic logits, called with logits (B, C, h, w), labels
            (B, h, w) and ``ignore_index``; mmdet's ``CrossEntropyLoss`` with ``avg_non_ignore=True``.
        reclass: config of :class:`ReClass`; ``loss_cls`` must then be a ``SoftTargetCrossEntropyLoss``.

    Raises:
        TypeError: an unknown argument.
        ValueError: ``num_relaxed`` out of range, or parts that need each other do not come together.
    """
    predicts_before_layers: bool
    unread = ('strides', )
    """What mmdet's configs hand to its heads and no head reads."""

    def __init__(self,
                 *args: Any,
                 remask: Optional[ConfigDict] = None,
                 num_relaxed: Optional[int] = None,
                 loss_sem: Optional[ConfigDict] = None,
                 reclass: Optional[ConfigDict] = None,
                 **kwargs: Any) -> None:
        _check_known(super().__init__, set(kwargs) - set(self.unread))
        super().__init__(*args, **kwargs)
        self.remask = None
        if remask is not None:
            # All masks are products with one pixel feature, of the width of the mask embeddings.
            width = self.mask_embed[-1].out_features
            self.remask = build_remask(remask, dict(pixel_space=width, embedding=width),
                                       self._num_semantic_classes)
        self.loss_sem = None if loss_sem is None else MODELS.build(loss_sem)
        self.reclass = None if reclass is None else MODELS.build(reclass)

        num_layers = len(self.transformer_decoder.layers)
        most = num_layers if self.predicts_before_layers else num_layers - 1
        self.num_relaxed = num_layers * 2 // 3 if num_relaxed is None else num_relaxed
        if self.remask is not None and not 0 < self.num_relaxed <= most:
            raise ValueError(
                f'Expected `num_relaxed` from 1 to {most}, the number of outputs before the final '
                f'one, but got {self.num_relaxed}')
        if (self.loss_sem is None) != (getattr(self.remask, 'semantic_head', None) is None):
            raise ValueError('Expected `loss_sem` and a `remask` with a semantic head together, but got '
                             f'loss_sem={loss_sem} and remask={remask}')
        if self.reclass is not None and not isinstance(self.loss_cls, SoftTargetCrossEntropyLoss):
            raise ValueError('Expected `loss_cls` of type SoftTargetCrossEntropyLoss with `reclass`, but got '
                             f'{type(self.loss_cls).__name__}')

    def loss(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> Dict[str, Tensor]:
        """Losses of a batch, mmdet's and ``loss_sem``, already weighted; in float32.

        Args:
            x: features of the backbone, fine to coarse.
            batch_data_samples: with ``gt_instances``, and ``gt_sem_seg`` where there are stuff classes.
        """
        outputs = self.relaxed_outputs(x, batch_data_samples)
        metas = [
            dict(sample.metainfo, sem_seg=sem_seg)
            for sample, sem_seg in zip(batch_data_samples, outputs.sem_seg)
        ]
        with torch.autocast(outputs.sem_seg.device.type, enabled=False):
            class_logits = [prediction.class_logits for prediction in outputs.predictions]
            losses = self.loss_by_feat(class_logits, outputs.predictions, outputs.gt_instances, metas)
            if outputs.sem_logits is not None:
                # Where no segment is, a panoptic map is unlabeled; beside instances there is background.
                ignored = self.num_classes if self.num_stuff_classes else None
                losses['loss_sem'] = self.loss_sem(
                    full_precision(outputs.sem_logits), outputs.sem_seg, ignore_index=ignored)
        return losses

    def relaxed_outputs(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> RelaxedOutputs:
        """The outputs of the decoder, relaxed in training, and the ground truth that belongs to them."""
        with kept_output(self.pixel_decoder) as kept:
            all_class_logits, all_mask_logits = self(x, batch_data_samples)
        pixel_feature = kept[0][0]
        predictions = [
            MaskPrediction(full_precision(class_logits), full_precision(mask_logits), pixel_feature)
            for class_logits, mask_logits in zip(all_class_logits, all_mask_logits)
        ]

        gt_instances = self.preprocess_gt([sample.gt_instances for sample in batch_data_samples],
                                          [sample.get('gt_sem_seg') for sample in batch_data_samples])
        size = predictions[-1].mask_logits.shape[-2:]
        sem_seg = torch.stack([semantic_map(gt, size, self.num_classes) for gt in gt_instances])

        predictions, sem_logits = self._relax(predictions, sem_seg)
        return RelaxedOutputs(predictions, sem_logits, gt_instances, sem_seg)

    def _relax(self, predictions: List[MaskPrediction],
               sem_seg: Tensor) -> Tuple[List[MaskPrediction], Optional[Tensor]]:
        """ReMask on the first outputs. They share the pixel feature, so that one call takes them all."""
        if self.remask is None:
            return predictions, None
        first = predictions[:self.num_relaxed]
        joint = first[0]._replace(
            class_logits=torch.cat([prediction.class_logits for prediction in first], dim=1),
            mask_logits=torch.cat([prediction.mask_logits for prediction in first], dim=1))
        joint = self.remask(joint, StageContext(joint.pixel_feature, sem_seg=sem_seg))
        if joint.relaxed_mask_logits is None:  # eval
            return predictions, None
        self._check_semantics(joint.sem_logits)
        relaxed = joint.relaxed_mask_logits.split(self.num_queries, dim=1)
        first = [prediction._replace(relaxed_mask_logits=masks) for prediction, masks in zip(first, relaxed)]
        return first + predictions[self.num_relaxed:], joint.sem_logits

    @property
    def _num_semantic_classes(self) -> int:
        """K, and background where there is no stuff."""
        return self.num_classes + (self.num_stuff_classes == 0)

    def _check_semantics(self, sem_logits: Optional[Tensor]) -> None:
        expected = self._num_semantic_classes
        if sem_logits is not None and sem_logits.shape[1] != expected:
            raise ValueError(
                f'Expected {expected} channels of the semantic head of `remask`, the classes and, '
                f'without stuff, background; but got {sem_logits.shape[1]}')

    def _loss_by_feat_single(self, cls_scores: Tensor, mask_preds: MaskPrediction,
                             batch_gt_instances: List[InstanceData],
                             batch_img_metas: List[dict]) -> Tuple[Tensor, ...]:
        """mmdet's losses of one output, on relaxed masks; what matching sees travels with the metas."""
        metas = [
            dict(meta, mask_logits=mask_logits)
            for meta, mask_logits in zip(batch_img_metas, mask_preds.mask_logits)
        ]
        return super()._loss_by_feat_single(cls_scores, mask_preds.supervised_mask_logits, batch_gt_instances,
                                            metas)

    def _get_targets_single(self, cls_score: Tensor, mask_pred: Tensor, gt_instances: InstanceData,
                            img_meta: dict) -> Tuple[Any, ...]:
        """mmdet's targets of one image, matched un-relaxed; label weights are targets where ReClass is on."""
        mask_logits = img_meta['mask_logits']
        labels, weights, *rest = super()._get_targets_single(cls_score, mask_logits, gt_instances, img_meta)
        if self.reclass is not None and self.training:
            weights = self._relax_labels(labels, mask_logits, img_meta['sem_seg'])
        return (labels, weights, *rest)

    def _relax_labels(self, labels: Tensor, mask_logits: Tensor, sem_seg: Tensor) -> Tensor:
        """Class targets (N, K + 1) of labels (N,), relaxed by ReClass where a query is matched."""
        one_hot = F.one_hot(labels, self.num_classes + 1).to(mask_logits)
        relaxed = self.reclass(one_hot[None], mask_logits[None], sem_seg[None])[0]
        return torch.where((labels < self.num_classes)[:, None], relaxed, one_hot)

    def drop_training_parts(self) -> None:
        """Remove the relaxations, which exist in training only."""
        self.remask = self.loss_sem = self.reclass = None


def _check_known(function: Callable, names: Iterable[str]) -> None:
    unknown = set(names) - set(inspect.signature(function).parameters)
    if unknown:
        raise TypeError(f'Expected no arguments but those of mmdet\'s head and of its relaxations, but got '
                        f'{sorted(unknown)}')


@MODELS.register_module()
class ReMaXMask2FormerHead(RelaxationMixin, Mask2FormerHead):
    """mmdet's ``Mask2FormerHead``, also for instances alone, with ReMask and ReClass in training."""
    predicts_before_layers = True


@MODELS.register_module()
class ReMaXMaskFormerHead(RelaxationMixin, MaskFormerHead):
    """mmdet's ``MaskFormerHead`` with ReMask and ReClass in training."""
    predicts_before_layers = False
