"""What ReMask does over a training: its gate inside and outside of segments, and the balance of losses."""
from typing import Any, Dict, List, NamedTuple, Tuple

import torch
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import Tensor, nn
from torch.utils.hooks import RemovableHandle

from remax_mm.models.layers import resize_to
from remax_mm.models.losses import PanopticCriterion
from remax_mm.models.relaxations import ReMask, semantic_gate
from remax_mm.structures import MaskPrediction, SlotTargets
from .model_loss_balance import find_mask_id_loss, split_mask_id_loss


class GateMeans(NamedTuple):
    """Mean of the gate of Eq. 1 over the pixels of a slot's segment, and over all other labeled pixels.

    Each is a mean over the matched slots of a batch; NaN if there are none.
    """
    inside: float
    outside: float


@torch.no_grad()
def measure_gate(gate: Tensor, owner: Tensor) -> GateMeans:
    """Mean of the gate inside and outside of the segment of each matched slot.

    Args:
        gate: (B, N, h, w), m_sem of Eq. 1 of ReMaX.
        owner: (B, h, w) int64, the slot of each pixel, N for void pixels.
    """
    num_slots = gate.shape[1]
    gate, owner = gate.flatten(2).double(), owner.flatten(1)
    is_inside = owner.unsqueeze(1) == torch.arange(num_slots, device=owner.device)[:, None]  # (B, N, h * w)
    matched = is_inside.any(dim=2)
    is_outside = ~is_inside & (owner < num_slots).unsqueeze(1)
    means = []
    for region in (is_inside, is_outside):
        per_slot = (gate * region).sum(dim=2) / region.sum(dim=2)
        means.append(per_slot[matched].nanmean().item())  # a segment may fill the image
    return GateMeans(*means)


class RelaxationLogHook(Hook):
    """Log what ReMask does, next to the losses.

    For each output (``d0``, ``d1``, ... and ``final``) it logs ``<output>.fp_fn``, the median over the images
    of the batch of the loss for false positives over that for false negatives. For an output with ReMask it
    also logs ``<output>.fp_fn_unrelaxed``, the same without Eq. 2, and ``<output>.gate_inside`` and
    ``<output>.gate_outside``, see :func:`measure_gate`. The training does not change.

    It is not registered, because training does not import the analysis otherwise: in a config, ``type`` is
    ``remax_mm.analysis.relaxation_log.RelaxationLogHook``.

    Args:
        interval: Iterations between two measurements, that of the logger hook or a part of it.

    Raises:
        ValueError: the interval is below 1, or the model has no mask-ID loss of this package.
    """

    # Before the hook that writes the log.
    priority = 'NORMAL'

    def __init__(self, interval: int = 50) -> None:
        if interval < 1:
            raise ValueError(f'Expected `interval` of at least 1, but got {interval}')
        self.interval = interval
        self._seen: List[Tuple[MaskPrediction, SlotTargets]] = []
        self._handles: List[RemovableHandle] = []

    def before_train(self, runner: Runner) -> None:
        """Find the parts of the model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        self._loss = find_mask_id_loss(model)
        self._criterion = next(part for part in model.modules() if isinstance(part, PanopticCriterion))
        self._gates = [part for part in model.modules() if isinstance(part, ReMask)]

    def before_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Keep what the mask-ID loss gets; not in the backward pass, which may compute it again."""
        if not self.every_n_train_iters(runner, self.interval):
            return
        self._seen = []
        keeping = self._loss.register_forward_hook(self._keep)
        self._handles = [keeping, self._criterion.register_forward_hook(lambda *_: keeping.remove())]

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Measure and log."""
        for handle in self._handles:
            handle.remove()
        for index, (prediction, targets) in enumerate(self._seen):
            name = f'd{index - 1}' if index else 'final'
            for key, value in self._measure(prediction, targets).items():
                runner.message_hub.update_scalar(f'train/{name}.{key}', value)
        self._seen, self._handles = [], []

    def _keep(self, loss: nn.Module, inputs: Tuple[Any, ...], output: Tensor) -> None:
        prediction, targets = inputs[:2]
        detached = (None if part is None else part.detach() for part in prediction)
        self._seen.append((MaskPrediction._make(detached), targets))

    def _measure(self, prediction: MaskPrediction, targets: SlotTargets) -> Dict[str, float]:
        values = dict(fp_fn=self._ratio(prediction.supervised_mask_logits, targets))
        if prediction.relaxed_mask_logits is not None:
            values['fp_fn_unrelaxed'] = self._ratio(prediction.mask_logits, targets)
        if prediction.relaxed_mask_logits is not None and prediction.sem_logits is not None:
            activation = self._gates[0].relax_masks.keywords['activation']
            gate = semantic_gate(prediction.sem_logits, prediction.class_logits, activation)
            means = measure_gate(resize_to(gate, targets.owner.shape[-2:]), targets.owner)
            values.update({f'gate_{region}': mean for region, mean in means._asdict().items()})
        return values

    def _ratio(self, mask_logits: Tensor, targets: SlotTargets) -> float:
        return split_mask_id_loss(self._loss, mask_logits, targets).ratio.nanmedian().item()
