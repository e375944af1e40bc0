"""False positives and false negatives in the mask losses of whole models."""
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, List, NamedTuple, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import MaskFormerHead
from mmdet.models.detectors import BaseDetector
from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.structures import InstanceData
from torch import Tensor, nn

from remax_mm.models.heads import RelaxationMixin
from remax_mm.models.heads.remax_mask2former_head import nearest_masks
from remax_mm.models.layers import resize_to
from remax_mm.models.losses import SigmoidMaskIDLoss, SoftmaxMaskIDLoss
from remax_mm.structures import MaskPrediction, SlotTargets
from .loss_balance import LossParts, split_sigmoid_cross_entropy, split_softmax_cross_entropy
from .training_step import in_training, load_training

Outputs = Dict[str, LossParts]


def split_mask_id_loss(loss: nn.Module, mask_logits: Tensor, targets: SlotTargets) -> LossParts:
    """Parts of a mask-ID loss, reduced over slots and pixels like the loss.

    Args:
        loss: A mask-ID loss of this package.
        mask_logits: (B, N, h, w) at any resolution, relaxed or not.
        targets: Targets at the resolution of the loss.
    """
    mask_logits = resize_to(mask_logits, targets.owner.shape[-2:])
    masks = F.one_hot(targets.owner, mask_logits.shape[1] + 1)[..., :-1].movedim(-1, 1)
    if isinstance(loss, SoftmaxMaskIDLoss):
        return split_softmax_cross_entropy(mask_logits, masks, targets.void)
    if loss.slot_reduction == 'matched':
        # Unmatched slots do not count in the loss. Their targets are 0, so a large negative logit has loss 0.
        unmatched = (targets.mask_weights == 0)[:, :, None, None]
        mask_logits = mask_logits.double().masked_fill(unmatched, -1e4)
    parts = split_sigmoid_cross_entropy(mask_logits, masks, targets.void)
    scale = 1 / mask_logits.shape[1] if loss.slot_reduction == 'mean' else 1
    return LossParts(*(part * scale for part in parts))


def find_mask_id_loss(model: nn.Module) -> nn.Module:
    """The one mask-ID loss of a model.

    Raises:
        ValueError: the model has none, or several.
    """
    losses = [part for part in model.modules() if isinstance(part, (SigmoidMaskIDLoss, SoftmaxMaskIDLoss))]
    if len(losses) != 1:
        raise ValueError('Expected a model with one SigmoidMaskIDLoss or SoftmaxMaskIDLoss, but '
                         f'{type(model).__name__} has {len(losses)}')
    return losses[0]


def collect_loss_balance(model: BaseDetector, batches: Iterable[dict]) -> Outputs:
    """Split the mask-ID loss of every image as in a training step, without training.

    The model runs in training mode: the relaxations are on, and batch norms use the statistics of the batch.
    Parameters do not change; running statistics and the mode are restored at the end.

    Args:
        model: Detector whose criterion calls its mask-ID loss for the final output first, then for each stage
            of the decoder.
        batches: Batches of a data loader.

    Returns:
        The parts over all images by output: ``'all'``, the sum of the outputs; ``'final'``; ``'d{i}'`` of
        stage i as it is supervised; ``'d{i}.unrelaxed'``, for a stage with ReMask, of the same masks without
        ReMask.

    Raises:
        ValueError: see :func:`find_mask_id_loss`, or there is no batch.
    """
    loss = find_mask_id_loss(model)
    seen: List[Outputs] = []

    def keep(_loss: nn.Module, inputs: Tuple[Any, ...], _output: Tensor) -> None:
        prediction, targets = inputs[:2]
        num_outputs = sum('.' not in name for name in seen[-1])
        name = f'd{num_outputs - 1}' if num_outputs else 'final'
        seen[-1].update(_split_output(loss, prediction, targets, name))

    handle = loss.register_forward_hook(keep)
    try:
        with in_training(model):
            for batch in batches:
                seen.append({})
                model(**model.data_preprocessor(batch, training=True), mode='loss')
    finally:
        handle.remove()
    return _gather(seen)


def collect_query_balance(model: BaseDetector, batches: Iterable[dict]) -> Outputs:
    """Like :func:`collect_loss_balance`, for the mask loss of mmdet's MaskFormer or Mask2Former.

    The binary cross entropy of the matched queries is split, over all pixels at the resolution of the masks.
    Unlabeled pixels are negatives, as in mmdet's losses. (Mask2Former uses sampled points in its loss, and
    MaskFormer the focal loss, which reweights the pixels.) Each output is matched by the assigner of the
    head, with the masks before ReMask.

    Returns:
        The same outputs, and ``'{output}.all_queries'``, in which the target of unmatched queries is an empty
        mask, as for the slots of kMaX-DeepLab with a sigmoid.
    """
    head = model.panoptic_head
    seen: List[Outputs] = []
    with in_training(model):
        for batch in batches:
            data = model.data_preprocessor(batch, training=True)
            features, samples = model.extract_feat(data['inputs']), data['data_samples']
            outputs, gt_instances = _query_outputs(head, features, samples)
            names = ['final', *(f'd{index}' for index in range(len(outputs) - 1))]
            seen.append({})
            for name, output in zip(names, [outputs[-1], *outputs[:-1]]):
                seen[-1].update(_split_queries(head, output, gt_instances, name))
    return _gather(seen)


def measure_loss_balance(config: Config,
                         checkpoint: Optional[Union[str, Path]] = None,
                         num_batches: int = 50,
                         seed: int = 0) -> Outputs:
    """The loss balance of a config on batches of its training data.

    Args:
        config: Its ``train_dataloader`` gives the batches; the same data and seed give the same batches.
        checkpoint: File or URL. None for the weights that training starts from.
        num_batches: At most this many batches.
        seed: Random seed of the images, and of the weights without a checkpoint.

    Raises:
        ValueError: ``num_batches`` is below 1.
        RuntimeError: the checkpoint is that of another model.
    """
    if num_batches < 1:
        raise ValueError(f'Expected `num_batches` to be at least 1, but got {num_batches}')
    model, loader = load_training(config, checkpoint, seed)
    has_mmdet_head = isinstance(getattr(model, 'panoptic_head', None), MaskFormerHead)
    collect = collect_query_balance if has_mmdet_head else collect_loss_balance
    return collect(model, islice(loader, num_batches))


def _split_output(loss: nn.Module, prediction: MaskPrediction, targets: SlotTargets, name: str) -> Outputs:
    outputs = {name: split_mask_id_loss(loss, prediction.supervised_mask_logits, targets)}
    if prediction.relaxed_mask_logits is not None:
        outputs[f'{name}.unrelaxed'] = split_mask_id_loss(loss, prediction.mask_logits, targets)
    return outputs


class _QueryOutput(NamedTuple):
    """Class logits (B, N, K + 1) and mask logits (B, N, h, w) of a head; relaxed ones if ReMask was on."""
    class_logits: Tensor
    mask_logits: Tensor
    relaxed_mask_logits: Optional[Tensor] = None


def _query_outputs(head: MaskFormerHead, features: Sequence[Tensor],
                   samples: SampleList) -> Tuple[List[_QueryOutput], List[InstanceData]]:
    """Outputs of a head, the final one last, and the ground truth of each image."""
    if isinstance(head, RelaxationMixin):
        relaxed = head.relaxed_outputs(features, samples)
        outputs = [
            _QueryOutput(p.class_logits, p.mask_logits, p.relaxed_mask_logits) for p in relaxed.predictions
        ]
        return outputs, relaxed.gt_instances
    gt_instances = head.preprocess_gt([sample.gt_instances for sample in samples],
                                      [sample.get('gt_sem_seg') for sample in samples])
    return [_QueryOutput(*output) for output in zip(*head(features, samples))], gt_instances


def _split_queries(head: MaskFormerHead, output: _QueryOutput, gt_instances: Sequence[InstanceData],
                   name: str) -> Outputs:
    """Parts of one output, for one image after the other, because the matched queries differ."""
    relaxed = output.relaxed_mask_logits
    images: List[Outputs] = []
    for image, gt in enumerate(gt_instances):
        masks, matched = _match(head, output.class_logits[image], output.mask_logits[image], gt)
        supervised = (output.mask_logits if relaxed is None else relaxed)[image]
        images.append({name: _split_masks(supervised[matched], masks[matched])})
        if relaxed is not None:
            unrelaxed = output.mask_logits[image, matched]
            images[-1][f'{name}.unrelaxed'] = _split_masks(unrelaxed, masks[matched])
        images[-1][f'{name}.all_queries'] = _split_masks(supervised, masks)
    return {key: _concatenate(image[key] for image in images) for key in images[0]}


def _match(head: MaskFormerHead, class_logits: Tensor, mask_logits: Tensor,
           gt: InstanceData) -> Tuple[Tensor, Tensor]:
    """Target masks (N, h, w) of the queries of an image, empty if unmatched, and whether they match (N,)."""
    gt_masks = nearest_masks(gt.masks, mask_logits.shape[-2:])
    index = head.assigner.assign(
        InstanceData(scores=class_logits, masks=mask_logits),
        InstanceData(labels=gt.labels, masks=gt_masks),
        img_meta={}).gt_inds  # 1 + index of the ground truth, 0 if unmatched
    empty_first = torch.cat([torch.zeros_like(mask_logits[:1]), gt_masks.to(mask_logits)])
    return empty_first[index], index > 0


def _split_masks(mask_logits: Tensor, masks: Tensor) -> LossParts:
    """Parts (1,) of one image from (N, h, w) masks."""
    no_void = torch.zeros_like(masks[:0].sum(0), dtype=torch.bool)
    return split_sigmoid_cross_entropy(mask_logits[None], masks[None], no_void[None])


def _gather(batches: Sequence[Outputs]) -> Outputs:
    """The parts of all images by output, and the sum of the supervised outputs."""
    if not batches:
        raise ValueError('Expected at least one batch to measure the loss, but got none')
    outputs = {name: _concatenate(batch[name] for batch in batches) for name in batches[0]}
    supervised = [parts for name, parts in outputs.items() if '.' not in name]
    return dict(all=LossParts(*(sum(part) for part in zip(*supervised))), **outputs)


def _concatenate(parts: Iterable[LossParts]) -> LossParts:
    return LossParts(*(torch.cat(part) for part in zip(*parts)))
