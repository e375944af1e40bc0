r"""How the mask-ID loss divides into false positives and false negatives (ReMaX, Figs. 1 and 6).

With a target share g of a pixel for a slot that claims it with probability p, the cross entropy of the two is

.. math:: -(1 - g) \log(1 - p) - g \log p

whose first term is paid for claiming too much, a false positive, and whose second for claiming too little, a
false negative. The paper compares p of a sigmoid of each slot with p of a softmax over the slots.
"""
import math
from itertools import islice
from pathlib import Path
from typing import Dict, Iterable, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed
from torch import Tensor, nn

from remax_mm.models.losses import SigmoidMaskIDLoss, SoftmaxMaskIDLoss
from remax_mm.structures import MaskPrediction, SlotTargets

IMBALANCED = 100
"""The ratio that the paper says sigmoid always exceeds."""


class LossParts(NamedTuple):
    """The two parts of the mask-ID loss of each image: (B,), float64, before the loss weight."""
    false_positive: Tensor
    false_negative: Tensor

    @property
    def ratio(self) -> Tensor:
        """False positives over false negatives; NaN for an image without a labelled pixel."""
        return self.false_positive / self.false_negative


@torch.no_grad()
def split_sigmoid_cross_entropy(mask_logits: Tensor, masks: Tensor, void: Tensor) -> LossParts:
    """Parts whose sum is the binary cross entropy over the slots, mean over the non-void pixels.

    Args:
        mask_logits: (B, N, h, w).
        masks: (B, N, h, w) in [0, 1].
        void: (B, h, w) bool.
    """
    logits, masks = mask_logits.double(), masks.double()
    return _mean_over_pixels(-(1 - masks) * F.logsigmoid(-logits), -masks * F.logsigmoid(logits), void)


@torch.no_grad()
def split_softmax_cross_entropy(mask_logits: Tensor, masks: Tensor, void: Tensor) -> LossParts:
    """Like :func:`split_sigmoid_cross_entropy`, with a softmax over the slots in place of the sigmoid.

    The second part alone is the softmax cross entropy: slots that claim too much are not charged, they only
    leave less to the right one. By gradient the two would weigh the same at every pixel: the gradients of a
    softmax cross entropy sum to 0.
    """
    logits, masks = mask_logits.double(), masks.double()
    log_claimed = logits.log_softmax(dim=1)

    # log(1 - p): from p where p <= 1/2, from the sum of all other slots where p may round to 1.
    best = logits.argmax(dim=1, keepdim=True)
    others = logits.scatter(1, best, float('-inf')).logsumexp(dim=1, keepdim=True)
    left_to_others = others - logits.logsumexp(dim=1, keepdim=True)
    log_unclaimed = (-log_claimed.exp()).log1p().scatter(1, best, left_to_others)
    return _mean_over_pixels(-(1 - masks) * log_unclaimed, -masks * log_claimed, void)


def split_mask_id_loss(loss: nn.Module, mask_logits: Tensor, targets: SlotTargets) -> LossParts:
    """Parts of a mask-ID loss of the package, reduced over slots and pixels as the loss does.

    Args:
        mask_logits: (B, N, h, w), relaxed or not.
        targets: at the resolution of the logits.
    """
    if isinstance(loss, SoftmaxMaskIDLoss):
        return split_softmax_cross_entropy(mask_logits, targets.masks, targets.void)
    if loss.slot_reduction == 'matched':
        # An unmatched slot has no part in the loss, a logit of minus infinity costs nothing where g is 0.
        unmatched = (targets.mask_weights == 0)[:, :, None, None]
        mask_logits = mask_logits.double().masked_fill(unmatched, -1e4)
    parts = split_sigmoid_cross_entropy(mask_logits, targets.masks, targets.void)
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


def collect_loss_balance(model: nn.Module, batches: Iterable[dict]) -> Dict[str, LossParts]:
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
    seen: List[Dict[str, LossParts]] = []

    def keep(_loss: nn.Module, inputs: Tuple[MaskPrediction, SlotTargets], _output: Tensor) -> None:
        num_outputs = sum('.' not in name for name in seen[-1])
        seen[-1].update(_split_output(loss, *inputs, name=f'd{num_outputs - 1}' if num_outputs else 'final'))

    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    handle = loss.register_forward_hook(keep)
    try:
        model.train()
        for batch in batches:
            seen.append({})
            with torch.no_grad():
                model(**model.data_preprocessor(batch, training=True), mode='loss')
    finally:
        handle.remove()
        model.train(was_training)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
    if not seen:
        raise ValueError('Expected at least one batch to measure the loss on, but got none')

    outputs = {name: _concatenate(batch[name] for batch in seen) for name in seen[0]}
    supervised = [parts for name, parts in outputs.items() if '.' not in name]
    return dict(all=LossParts(*(sum(part) for part in zip(*supervised))), **outputs)


def measure_loss_balance(config: Config,
                         checkpoint: Optional[Union[str, Path]] = None,
                         num_batches: int = 50,
                         seed: int = 0) -> Dict[str, LossParts]:
    """Like :func:`collect_loss_balance`, of a config on batches of its training data.

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
    return collect_loss_balance(model.to(get_device()), islice(loader, num_batches))


def summarize_loss_balance(parts: LossParts) -> Dict[str, float]:
    """Numbers for people, over the images with a labelled pixel (NaN where there is none).

    Returns:
        ``images``; means of ``false_positive`` and ``false_negative``; of their ratio, the ``median``,
        the ``percentile_5`` and ``percentile_95``, and the ``share_imbalanced`` of images above 100.
    """
    labelled = ~parts.ratio.isnan()
    ratio, positive, negative = (x[labelled] for x in (parts.ratio, *parts))
    if not labelled.any():
        ratio = positive = negative = torch.full((1, ), float('nan'))
    low, median, high = np.percentile(ratio.cpu().numpy(), [5, 50, 95]).tolist()
    return dict(
        images=int(labelled.sum()),
        false_positive=positive.mean().item(),
        false_negative=negative.mean().item(),
        median=median,
        percentile_5=low,
        percentile_95=high,
        share_imbalanced=(ratio > IMBALANCED).double().mean().item())


def logarithmic_edges(ratios: Sequence[Tensor], bins_per_decade: int = 10) -> np.ndarray:
    """Edges of bins of equal width on a logarithmic scale, from a power of ten to a power of ten, around all.

    Args:
        ratios: (B,) each; only finite ones above 0 count, and 1 where there is none.
    """
    values = torch.cat([ratio.flatten().double().cpu() for ratio in ratios])
    values = values[values.isfinite() & (values > 0)].log10()
    low = math.floor(values.min().item()) if len(values) else 0
    high = max(math.ceil(values.max().item()), low + 1) if len(values) else 1
    return np.logspace(low, high, (high - low) * bins_per_decade + 1)


def format_loss_balance(runs: Mapping[str, Mapping[str, LossParts]]) -> str:
    """A Markdown table of every output of every run."""
    lines = [
        '| run | output | median FP/FN | 5 % to 95 % of images | images above 100 | FP | FN |',
        '|---|---|---|---|---|---|---|'
    ]
    for run, outputs in runs.items():
        for name, parts in outputs.items():
            summary = summarize_loss_balance(parts)
            lines.append('| {run} | {name} | {median:.3g} | {percentile_5:.3g} to {percentile_95:.3g} | '
                         '{share_imbalanced:.1%} | {false_positive:.3g} | {false_negative:.3g} |'.format(
                             run=run, name=name, **summary))
    return '\n'.join(lines)


def _split_output(loss: nn.Module, prediction: MaskPrediction, targets: SlotTargets,
                  name: str) -> Dict[str, LossParts]:
    outputs = {name: split_mask_id_loss(loss, prediction.supervised_mask_logits, targets)}
    if prediction.relaxed_mask_logits is not None:
        outputs[f'{name}.unrelaxed'] = split_mask_id_loss(loss, prediction.mask_logits, targets)
    return outputs


def _concatenate(parts: Iterable[LossParts]) -> LossParts:
    return LossParts(*(torch.cat(part) for part in zip(*parts)))


def _mean_over_pixels(false_positive: Tensor, false_negative: Tensor, void: Tensor) -> LossParts:
    """Sum (B, N, h, w) over the slots, then mean over the non-void pixels (0 if none)."""
    count = (~void).flatten(1).sum(dim=1).clamp(min=1)
    return LossParts(*(part.sum(dim=1).masked_fill(void, 0).flatten(1).sum(dim=1) / count
                       for part in (false_positive, false_negative)))
