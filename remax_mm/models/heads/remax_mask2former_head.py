"""ReMask and ReClass (ReMaX, arXiv 2306.17319) on mmdet's own MaskFormer and Mask2Former heads.

The paper names Mask2Former as future work (Appendix D). Its text leaves some points open, which this file
reads as follows:

- A decoder "layer" is an output of the head other than the last. In Mask2Former these are the predictions
  before each layer, as in kMaX-DeepLab; in MaskFormer the predictions after each layer but the last. With L
  decoder layers the first 2 L / 3 outputs are relaxed; the last output never is.
- All masks of these heads are products with one pixel feature, so one semantic head on it is enough.
- Matching and ReClass use the predicted masks, not the relaxed ones.
- ReClass relaxes the targets of matched queries only. In kMaX-DeepLab the PQ-style loss gives other slots
  almost no weight; here a class target in addition to "no object" would teach unmatched queries to predict
  what a better query already predicts.
- The masked attention of Mask2Former is unchanged: it uses the sign of a logit, which Eq. 2 of ReMaX keeps.
  (In kMaX-DeepLab slots compete for a pixel, so there the relaxed masks matter.)
"""
import inspect
import math
from contextlib import contextmanager
from typing import (TYPE_CHECKING, Any, Callable, Dict, Iterable, Iterator, List, NamedTuple, Optional,
                    Sequence, Tuple)

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import Mask2FormerHead, MaskFormerHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.structures import InstanceData
from torch import Tensor, nn

from remax_mm.structures import MaskPrediction, StageContext, full_precision
from ..layers import prior_logit
from ..losses import SoftTargetCrossEntropyLoss
from ..relaxations import build_remask


def set_mask_prior(mask_embed: nn.Linear, mask_feature: nn.Conv2d, probability: float) -> None:
    """Set the initial probability that a query claims a pixel.

    A mask of mmdet's heads is the product of an embedding of the query with a pixel feature, without a bias.
    The first channel of both becomes one: its weights start at 0, and the product of its two biases is the
    logit of the probability. To it, the other channels add what they give without a prior.

    Args:
        mask_embed: layer that gives the embeddings of the queries.
        mask_feature: layer that gives the pixel feature, with as many channels.
        probability: in (0, 1).

    Raises:
        ValueError: the probability is not in (0, 1), or a layer has no bias.
    """
    logit = prior_logit(probability)
    for layer, bias in ((mask_embed, 1.), (mask_feature, math.copysign(1., logit))):
        if layer.bias is None:
            raise ValueError('Expected layers with a bias for `mask_prior`, but got '
                             f'{layer}')
        nn.init.zeros_(layer.weight[0])
        nn.init.constant_(layer.bias[0], bias * math.sqrt(abs(logit)))


class RelaxedOutputs(NamedTuple):
    """What the losses of a relaxed head compare with the ground truth.

    Attributes:
        predictions: all outputs of the decoder, the final one last.
        sem_logits: (B, C, h, w) of the semantic head; None without one, and in eval.
        gt_instances: ``labels`` (M,) and ``masks`` (M, H, W) of each image, from ``preprocess_gt``.
        sem_seg: (B, h, w) int64, class of each mask pixel, K where no segment is.
    """
    predictions: List[MaskPrediction]
    sem_logits: Optional[Tensor]
    gt_instances: List[InstanceData]
    sem_seg: Tensor


def nearest_masks(masks: Tensor, size: Sequence[int]) -> Tensor:
    """Masks (M, H, W) of any type at ``size`` (h, w) by nearest-neighbor sampling, as in mmdet's heads."""
    rows, columns = (torch.arange(wanted, device=masks.device) * full // wanted
                     for wanted, full in zip(size, masks.shape[-2:]))
    return masks[:, rows[:, None], columns]


def semantic_map(gt_instances: InstanceData, size: Sequence[int], num_classes: int) -> Tensor:
    """Class of the segment at each pixel, of the first one where segments overlap.

    Args:
        gt_instances: ``labels`` (M,) in [0, K) and ``masks`` (M, H, W) in {0, 1}.
        size: (h, w).
        num_classes: K, the value where no segment is.

    Returns:
        (h, w) int64 in [0, K].
    """
    masks = nearest_masks(gt_instances.masks, size)
    no_segment = masks.new_ones(1, *size)  # the last one, so that it counts only where no segment is
    owner = torch.cat([masks, no_segment]).byte().argmax(dim=0)
    return F.pad(gt_instances.labels, (0, 1), value=num_classes)[owner]


@contextmanager
def kept_output(module: nn.Module) -> Iterator[List[Any]]:
    """List of the outputs of the module, one per call, within the context."""
    outputs: List[Any] = []
    handle = module.register_forward_hook(lambda _module, _inputs, output: outputs.append(output))
    try:
        yield outputs
    finally:
        handle.remove()


if TYPE_CHECKING:
    from mmdet.models.dense_heads import MaskFormerHead as Head  # one of the heads that the mixin extends
else:
    Head = object


class RelaxationMixin(Head):
    """Adds the relaxations to mmdet's ``MaskFormerHead`` or a subclass, which follows the mixin in the bases.

    Without relaxations the losses are those of mmdet, bit for bit. At test the head is always mmdet's, and
    its parameters have mmdet's names. The parameters of ReMask start with ``remask.``.

    Args:
        args, kwargs: of the head. An unknown keyword is an error; mmdet's heads ignore it silently.
        remask: config of :class:`ReMask`, one for all relaxed outputs. Its semantic head maps the pixel
            feature to K logits, or to K + 1 without stuff classes, background last.
        num_relaxed: number of relaxed outputs, from the first one; None for two thirds of the layers.
        loss_sem: config of the loss of those semantic logits, called with logits (B, C, h, w), labels
            (B, h, w) and ``ignore_index``; mmdet's ``CrossEntropyLoss`` with ``avg_non_ignore=True``.
        reclass: config of :class:`ReClass`; ``loss_cls`` must then be a ``SoftTargetCrossEntropyLoss``.
        mask_prior: initial probability that a query claims a pixel, see :func:`set_mask_prior`; None for
            mmdet's initial weights.

    Raises:
        TypeError: an unknown argument.
        ValueError: ``num_relaxed`` is out of range, or one of two parts that need each other is missing.
    """
    predicts_before_layers: bool
    unread = ('strides', )
    """Arguments in mmdet's configs that its heads ignore."""

    def __init__(self,
                 *args: Any,
                 remask: Optional[ConfigDict] = None,
                 num_relaxed: Optional[int] = None,
                 loss_sem: Optional[ConfigDict] = None,
                 reclass: Optional[ConfigDict] = None,
                 mask_prior: Optional[float] = None,
                 **kwargs: Any) -> None:
        _check_known(super().__init__, set(kwargs) - set(self.unread))
        super().__init__(*args, **kwargs)
        self.remask = None
        if remask is not None:
            # All masks are products with one pixel feature, of the width of the mask embeddings.
            width = self.mask_embed[-1].out_features
            self.remask = build_remask(remask, dict(pixel_space=width, embedding=width),
                                       self._num_semantic_classes)
        self.loss_sem: Any = None if loss_sem is None else MODELS.build(loss_sem)
        self.reclass: Any = None if reclass is None else MODELS.build(reclass)
        self.mask_prior = mask_prior

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

    def init_weights(self) -> None:
        """mmdet's initial weights, then the prior of the masks."""
        super().init_weights()
        if self.mask_prior is not None:
            set_mask_prior(self.mask_embed[-1], self.pixel_decoder.mask_feature, self.mask_prior)

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
                # Pixels without a segment are unlabeled, but background if there are no stuff classes.
                ignored = self.num_classes if self.num_stuff_classes else None
                losses['loss_sem'] = self.loss_sem(
                    full_precision(outputs.sem_logits), outputs.sem_seg, ignore_index=ignored)
        return losses

    def relaxed_outputs(self, x: Sequence[Tensor], batch_data_samples: SampleList) -> RelaxedOutputs:
        """The outputs of the decoder, relaxed in training, with their ground truth."""
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
        """Apply ReMask to the first outputs; they share the pixel feature, so one call is enough."""
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
                f'Expected {expected} channels of the semantic head of `remask` (the classes, and background '
                f'if there is no stuff), but got {sem_logits.shape[1]}')

    def _loss_by_feat_single(self, cls_scores: Tensor, mask_preds: MaskPrediction,
                             batch_gt_instances: List[InstanceData],
                             batch_img_metas: List[dict]) -> Tuple[Tensor, ...]:
        """mmdet's losses of one output, on relaxed masks; the metas carry the masks for matching."""
        metas = [
            dict(meta, mask_logits=mask_logits)
            for meta, mask_logits in zip(batch_img_metas, mask_preds.mask_logits)
        ]
        return super()._loss_by_feat_single(cls_scores, mask_preds.supervised_mask_logits, batch_gt_instances,
                                            metas)

    def _get_targets_single(self, cls_score: Tensor, mask_pred: Tensor, gt_instances: InstanceData,
                            img_meta: dict) -> Tuple[Any, ...]:
        """mmdet's targets of one image; with ReClass the label weights are class targets."""
        mask_logits = img_meta['mask_logits']
        labels, weights, *rest = super()._get_targets_single(cls_score, mask_logits, gt_instances, img_meta)
        if self.reclass is not None and self.training:
            weights = self._relax_labels(labels, mask_logits, img_meta['sem_seg'])
        return (labels, weights, *rest)

    def _relax_labels(self, labels: Tensor, mask_logits: Tensor, sem_seg: Tensor) -> Tensor:
        """Class targets (N, K + 1) from labels (N,), relaxed by ReClass for matched queries."""
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
