"""Losses for the log without waiting for the GPU in every iteration."""
from collections import deque
from typing import Any, Deque, Dict, List, NamedTuple, Optional

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import LoggerHook, RuntimeInfoHook
from mmengine.runner import Runner
from torch import Tensor

from remax_mm.models.detectors.finite_losses import copy_to_host


class LoggedLosses(NamedTuple):
    """Losses of an iteration.

    Attributes:
        names: names of the losses.
        values: (L,) on the CPU, one per name.
        copied: what tells that ``values`` has arrived from the GPU; None if it was on the CPU.
    """
    names: List[str]
    values: Tensor
    copied: Optional[torch.cuda.Event]


@HOOKS.register_module()
class BackgroundRuntimeInfoHook(RuntimeInfoHook):
    """mmengine's ``RuntimeInfoHook``, which does not wait for the losses of each iteration.

    mmengine reads every loss on the host as soon as an iteration ends, so the GPU is idle until the next one
    has been prepared. Here losses on a GPU are copied in the background. The message hub gets them in their
    order when they have arrived, and at the latest when they are logged, before a validation and before a
    checkpoint. The logs are the same.
    """

    def __init__(self) -> None:
        self._pending: Deque[LoggedLosses] = deque()

    def after_train_iter(self,
                         runner: Runner,
                         batch_idx: int,
                         data_batch: Any = None,
                         outputs: Optional[Dict[str, Any]] = None) -> None:
        """Start to copy the losses, and publish those that have arrived."""
        losses = {name: value for name, value in (outputs or {}).items() if _is_on_gpu(value)}
        if losses:
            stacked = torch.stack([loss.detach().float().reshape(()) for loss in losses.values()])
            self._pending.append(LoggedLosses(list(losses), *copy_to_host(stacked)))
        self._publish(runner, wait=self._is_logged(runner, batch_idx))
        others = {name: value for name, value in (outputs or {}).items() if name not in losses}
        super().after_train_iter(runner, batch_idx, data_batch, others)

    def before_val(self, runner: Runner) -> None:
        self._publish(runner, wait=True)
        super().before_val(runner)

    def before_save_checkpoint(self, runner: Runner, checkpoint: dict) -> None:
        """Complete the history of the losses, which is part of the checkpoint."""
        self._publish(runner, wait=True)
        checkpoint['message_hub'] = runner.message_hub.state_dict()

    def after_train(self, runner: Runner) -> None:
        self._publish(runner, wait=True)
        super().after_train(runner)

    def _publish(self, runner: Runner, wait: bool) -> None:
        while self._pending:
            names, values, copied = self._pending[0]
            if copied is not None and not copied.query():
                if not wait:
                    return
                copied.synchronize()
            self._pending.popleft()
            for name, value in zip(names, values.tolist()):
                runner.message_hub.update_scalar(f'train/{name}', value)

    def _is_logged(self, runner: Runner, batch_idx: int) -> bool:
        intervals = [hook.interval for hook in runner.hooks if isinstance(hook, LoggerHook)]
        return (any(self.every_n_inner_iters(batch_idx, interval) for interval in intervals)
                or self.end_of_epoch(runner.train_dataloader, batch_idx))


def _is_on_gpu(value: Any) -> bool:
    return isinstance(value, Tensor) and value.is_cuda
