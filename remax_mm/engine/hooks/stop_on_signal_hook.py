"""End a training early, with a checkpoint, when a signal asks for it."""
import os
import signal
import threading
from functools import partial
from types import FrameType
from typing import Any, Callable, Optional

import torch
import torch.distributed as dist
from mmdet.registry import HOOKS
from mmengine.hooks import CheckpointHook, Hook
from mmengine.runner import IterBasedTrainLoop, Runner

# EX_TEMPFAIL of sysexits.h: not an error, try again later.
EXIT_CODE = 75
_SIGNALS = (signal.SIGTERM, signal.SIGUSR1, signal.SIGINT)


def _start_worker(worker_init_fn: Optional[Callable[[int], None]], worker_id: int) -> None:
    """Let a worker of a data loader ignore the signals, except a SIGTERM from its parent."""
    for number in (signal.SIGUSR1, signal.SIGINT):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGTERM})
    threading.Thread(target=_exit_if_parent_asks, daemon=True).start()
    if worker_init_fn is not None:
        worker_init_fn(worker_id)


def _exit_if_parent_asks() -> None:
    # The parent ends its workers by SIGTERM and waits for their end. Launchers send it to all processes.
    while signal.sigwaitinfo({signal.SIGTERM}).si_pid != os.getppid():
        pass
    os._exit(0)


@HOOKS.register_module()
class StopOnSignalHook(Hook):
    """On SIGTERM, SIGUSR1 or SIGINT, finish the iteration, write a checkpoint and exit with code 75.

    All processes of a distributed training leave after the same iteration, also if only one of them gets the
    signal. During validation the checkpoint is that of the last iteration, and the rest of the validation is
    left out. With gradient accumulation the current cycle is finished first. A second SIGINT ends the process
    at once, without a checkpoint.

    The workers of the data loaders ignore the three signals, so that a signal to the whole process group does
    not end the step. mmengine's own training loop starts its workers too early for that.

    Raises:
        ValueError: the training has no ``CheckpointHook`` that counts iterations, or its loop cannot resume
            from any iteration.
    """

    # After the hooks that log the iteration and write its checkpoint.
    priority = 'LOWEST'

    def __init__(self) -> None:
        self.received: Optional[signal.Signals] = None
        self._former: dict = {}
        self._group: Optional[dist.ProcessGroup] = None

    def before_train(self, runner: Runner) -> None:
        """Install the signal handlers; the workers of the data loaders start later."""
        self._checkpoint_hook(runner)
        if not isinstance(runner.train_loop, IterBasedTrainLoop):
            raise ValueError('Expected a training loop by iterations for StopOnSignalHook, which writes '
                             f'checkpoints at any iteration, but got {type(runner.train_loop).__name__}')
        # The processes agree by CPU, so that no GPU has to wait.
        if dist.is_initialized() and runner.world_size > 1:
            self._group = dist.new_group(backend='gloo')
        for loop in (runner.train_loop, runner.val_loop):
            if loop is not None:
                loader = loop.dataloader
                loader.worker_init_fn = partial(_start_worker, loader.worker_init_fn)
        for number in _SIGNALS:
            self._former[number] = signal.signal(number, self._receive)

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Leave after this iteration if any process was asked to."""
        done = runner.iter + 1
        steps = getattr(runner.optim_wrapper, '_accumulative_counts', 1)
        if self._stop_is_wanted() and done % steps == 0 and done < runner.max_iters:
            self._leave(runner, done)

    def after_val_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Leave a validation within a training if any process was asked to."""
        if self._former and self._stop_is_wanted():
            self._leave(runner, runner.iter)

    def after_run(self, runner: Runner) -> None:
        """Restore the former signal handlers."""
        for number, handler in self._former.items():
            signal.signal(number, handler)
        self._former = {}

    def _receive(self, number: int, frame: Optional[FrameType]) -> None:
        self.received = signal.Signals(number)
        if number == signal.SIGINT:
            signal.signal(number, signal.SIG_DFL)

    def _stop_is_wanted(self) -> bool:
        """Whether any process has received a signal."""
        wanted = torch.tensor(self.received is not None, dtype=torch.uint8)
        if self._group is not None:
            dist.all_reduce(wanted, dist.ReduceOp.MAX, group=self._group)
        return bool(wanted)

    def _leave(self, runner: Runner, done: int) -> None:
        """Write the checkpoint after ``done`` iterations unless there is one, and exit."""
        received = self.received.name if self.received else 'A signal to another process'
        runner.logger.info(f'{received}: stopping after iteration {done}')
        hook = self._checkpoint_hook(runner)
        name = hook.filename_tmpl.format(done)
        if not (hook.last_ckpt or '').endswith(name):
            hook._save_checkpoint_with_step(runner, done, meta=dict(epoch=runner.epoch, iter=done))
        # A launcher ends the other processes as soon as one exits, so all wait for the checkpoint.
        if self._group is not None:
            dist.barrier(group=self._group)
        runner.call_hook('after_run')
        runner.logger.info(f'Wrote {hook.last_ckpt}; continue with --resume. Exit code {EXIT_CODE}')
        raise SystemExit(EXIT_CODE)

    @staticmethod
    def _checkpoint_hook(runner: Runner) -> CheckpointHook:
        for hook in runner.hooks:
            if isinstance(hook, CheckpointHook) and not hook.by_epoch:
                return hook
        raise ValueError('Expected a CheckpointHook with by_epoch=False in `default_hooks` for '
                         'StopOnSignalHook, but there is none')
