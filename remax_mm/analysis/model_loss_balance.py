"""Where the mask losses of whole models stand between false positives and false negatives."""
from contextlib import contextmanager
from itertools import islice
from pathlib import Path
from typing import Any, Dict, Iterable, Iterator, List, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from mmdet.models.dense_heads import MaskFormerHead
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed
from mmengine.structures import InstanceData
from torch import Tensor, nn

from remax_mm.models.heads import RelaxationMixin
from remax_mm.models.heads.remax_mask2former_head import nearest_masks
from remax_mm.models.layers import resize_to
from remax_mm.models.losses import SigmoidMaskIDLoss, SoftmaxMaskIDLoss
from remax_mm.structures import MaskPrediction, SlotTargets
from .loss_balance import LossParts, split_sigmoid_cross_entropy, split_softmax_cross_entropy

Outputs = Dict[str, LossParts]


def split_mask_id_loss(loss: nn.Module, mask_logits: Tensor, targets: SlotTargets) -> LossParts:
    """Parts of a mask-ID loss of the package, reduced over slots and pixels as the loss does.

    Args:
        mask_logits: (B, N, h, w) at any resolution, relaxed or not.
        targets: at the resolution of the loss.
    """
    mask_logits = resize_to(mask_logits, targets.owner.shape[-2:])
    masks = F.one_hot(targets.owner, mask_logits.shape[1] + 1)[..., :-1].movedim(-1, 1)
    if isinstance(loss, SoftmaxMaskIDLoss):
        return split_softmax_cross_entropy(mask_logits, masks, targets.void)
    if loss.slot_reduction == 'matched':
        # An unmatched slot has no part in the loss, a logit of minus infinity costs nothing where g is 0.
        unmatched = (targets.mask_weights == 0)[:, :, None, None]
        mask_logits = mask_logits.double().masked_fill(unmatched, -1e4)
    parts = split_sigmoid_cross_entropy(mask_logits, masks, targets.void)
    share = 1 / mask_logits.shape[1] if loss.slot_reduction == 'mean' else 1
    return LossParts(*(part * share for part in parts))


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


def collect_loss_balance(model: nn.Module, batches: Iterable[dict]) -> Outputs:
    """Split the mask-ID loss of every image as a training step would see it, without training.

    The model runs in training mode, where the relaxations are on and batch norms take the statistics of the
    batch. The parameters stay, and the running statistics and the mode are put back at the end.

    Args:
        model: an mmdet detector whose criterion calls its mask-ID loss for the final output first, then for
            each of the decoder's stages.
        batches: as a data loader gives them.

    Returns:
        By output, over all images: ``'all'``, the sum of the outputs; ``'final'``; ``'d{i}'`` of stage i, as
        it is supervised; ``'d{i}.unrelaxed'``, what it would be on the same masks without ReMask, where there
        is one.

    Raises:
        ValueError: see :func:`find_mask_id_loss`; or there is no batch.
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
        with _in_training(model):
            for batch in batches:
                seen.append({})
                model(**model.data_preprocessor(batch, training=True), mode='loss')
    finally:
        handle.remove()
    return _gather(seen)


def collect_query_balance(model: nn.Module, batches: Iterable[dict]) -> Outputs:
    """Like :func:`collect_loss_balance`, of the mask loss of mmdet's MaskFormer or Mask2Former, or a child.

    What is split is the binary cross entropy of the matched queries, whose unlabeled pixels are negative as
    in mmdet's losses, over all pixels at the resolution of the masks. Mask2Former takes it at sampled points,
    MaskFormer the focal loss, which weighs it anew. Each output is matched, un-relaxed, by the head's own
    assigner.

    Returns:
        As :func:`collect_loss_balance`; and ``'{output}.all_queries'``, what it would be if unmatched queries
        were held against empty masks, as the slots of kMaX-DeepLab are under a sigmoid.
    """
    head = model.panoptic_head
    seen: List[Outputs] = []
    with _in_training(model):
        for batch in batches:
            data = model.data_preprocessor(batch, training=True)
            features, samples = model.extract_feat(data['inputs']), data['data_samples']
            predictions, gt_instances = _query_predictions(head, features, samples)
            names = ['final', *(f'd{index}' for index in range(len(predictions) - 1))]
            seen.append({})
            for name, prediction in zip(names, [predictions[-1], *predictions[:-1]]):
                seen[-1].update(_split_queries(head, prediction, gt_instances, name))
    return _gather(seen)


def measure_loss_balance(config: Config,
                         checkpoint: Optional[Union[str, Path]] = None,
                         num_batches: int = 50,
                         seed: int = 0) -> Outputs:
    """The loss balance of a config on batches of its training data, by the collector that fits its head.

    Args:
        config: its ``train_dataloader`` gives the batches, the same ones for the same data and seed.
        checkpoint: file or URL; None for the weights that training starts from.
        num_batches: at most so many.

    Raises:
        ValueError: ``num_batches`` below 1.
        RuntimeError: the checkpoint is not one of this model.
    """
    if num_batches < 1:
        raise ValueError(f'Expected `num_batches` to be at least 1, but got {num_batches}')
    init_default_scope(config.get('default_scope', 'mmdet'))
    set_random_seed(seed)
    model = MODELS.build(config.model)
    if checkpoint is None:
        model.init_weights()
    else:
        load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)

    set_random_seed(seed)  # drawing the weights must not shift the augmentation of the images
    loader = Runner.build_dataloader(config.train_dataloader, seed=seed)
    mmdets = isinstance(getattr(model, 'panoptic_head', None), MaskFormerHead)
    collect = collect_query_balance if mmdets else collect_loss_balance
    return collect(model.to(get_device()), islice(loader, num_batches))


@contextmanager
def _in_training(model: nn.Module) -> Iterator[None]:
    """Training mode without gradients; at the end running statistics and mode are what they were."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    try:
        with torch.no_grad():
            yield model.train()
    finally:
        model.train(was_training)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])


def _split_output(loss: nn.Module, prediction: MaskPrediction, targets: SlotTargets, name: str) -> Outputs:
    outputs = {name: split_mask_id_loss(loss, prediction.supervised_mask_logits, targets)}
    if prediction.relaxed_mask_logits is not None:
        outputs[f'{name}.unrelaxed'] = split_mask_id_loss(loss, prediction.mask_logits, targets)
    return outputs


def _query_predictions(head: MaskFormerHead, features: Sequence[Tensor],
                       samples: SampleList) -> Tuple[List[MaskPrediction], List[InstanceData]]:
    """Outputs of a head, relaxed where it is, and the ground truth of each image."""
    if isinstance(head, RelaxationMixin):
        outputs = head.relaxed_outputs(features, samples)
        return outputs.predictions, outputs.gt_instances
    gt_instances = head.preprocess_gt([sample.gt_instances for sample in samples],
                                      [sample.get('gt_sem_seg') for sample in samples])
    outputs = zip(*head(features, samples))
    return [MaskPrediction(classes, masks, None) for classes, masks in outputs], gt_instances


def _split_queries(head: MaskFormerHead, prediction: MaskPrediction, gt_instances: Sequence[InstanceData],
                   name: str) -> Outputs:
    """Parts of one output, image by image, because each has other matched queries."""
    images: List[Outputs] = []
    for image, gt in enumerate(gt_instances):
        masks, matched = _match(head, prediction.class_logits[image], prediction.mask_logits[image], gt)
        supervised = prediction.supervised_mask_logits[image]
        images.append({name: _split_masks(supervised[matched], masks[matched])})
        if prediction.relaxed_mask_logits is not None:
            unrelaxed = prediction.mask_logits[image, matched]
            images[-1][f'{name}.unrelaxed'] = _split_masks(unrelaxed, masks[matched])
        images[-1][f'{name}.all_queries'] = _split_masks(supervised, masks)
    return {key: _concatenate(image[key] for image in images) for key in images[0]}


def _match(head: MaskFormerHead, class_logits: Tensor, mask_logits: Tensor,
           gt: InstanceData) -> Tuple[Tensor, Tensor]:
    """Target masks (N, h, w) of the queries of an image, empty if unmatched, and which are matched (N,)."""
    gt_masks = nearest_masks(gt.masks, mask_logits.shape[-2:])
    index = head.assigner.assign(
        InstanceData(scores=class_logits, masks=mask_logits),
        InstanceData(labels=gt.labels, masks=gt_masks),
        img_meta={}).gt_inds  # from 1 on, 0 if unmatched
    with_nothing = torch.cat([torch.zeros_like(mask_logits[:1]), gt_masks.to(mask_logits)])
    return with_nothing[index], index > 0


def _split_masks(mask_logits: Tensor, masks: Tensor) -> LossParts:
    """Parts of one image, (1,) each, of (N, h, w) masks."""
    no_void = torch.zeros_like(masks[:0].sum(0), dtype=torch.bool)
    return split_sigmoid_cross_entropy(mask_logits[None], masks[None], no_void[None])


def _gather(batches: Sequence[Outputs]) -> Outputs:
    """All images of each output, and the sum of the outputs that are supervised."""
    if not batches:
        raise ValueError('Expected at least one batch to measure the loss on, but got none')
    outputs = {name: _concatenate(batch[name] for batch in batches) for name in batches[0]}
    supervised = [parts for name, parts in outputs.items() if '.' not in name]
    return dict(all=LossParts(*(sum(part) for part in zip(*supervised))), **outputs)


def _concatenate(parts: Iterable[LossParts]) -> LossParts:
    return LossParts(*(torch.cat(part) for part in zip(*parts)))
