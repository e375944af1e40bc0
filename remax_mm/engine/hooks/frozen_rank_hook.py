"""End a distributed training in which a process does not answer any more."""
import os
import re
import socket
import sys
import threading
from datetime import timedelta
from typing import Any, List, Optional

import torch.distributed as dist
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.runner import Runner


@HOOKS.register_module()
class FrozenRankHook(Hook):
    """End the training if one of its processes is frozen, with a message that names it.

    While one process hangs, the others wait in a collective call. It ends after ``env_cfg.dist_cfg.timeout``
    with a message that does not say which process is missing. This hook starts a thread in each process, and
    these threads meet at intervals, over gloo. It does not notice a process whose thread is alive, such as
    one that waits for its data loader.

    Args:
        interval: Seconds between two meetings.
        timeout: Seconds after which a process counts as frozen.
    """

    def __init__(self, interval: float = 30, timeout: float = 300) -> None:
        self.interval, self.timeout = interval, timedelta(seconds=timeout)
        self._group: Optional[dist.ProcessGroup] = None
        self._names: List[Any] = []
        self._ended = threading.Event()

    def before_train(self, runner: Runner) -> None:
        """Start the thread of this process."""
        if not dist.is_initialized() or runner.world_size == 1:
            return
        self._group = dist.new_group(backend='gloo', timeout=self.timeout)
        self._names = [None] * runner.world_size
        name = f'rank {runner.rank} (host {socket.gethostname()}, process id {os.getpid()})'
        dist.all_gather_object(self._names, name, group=self._group)
        threading.Thread(target=self._watch, args=(runner.rank, ), daemon=True).start()

    def after_run(self, runner: Runner) -> None:
        """Stop the thread."""
        self._ended.set()

    def _watch(self, rank: int) -> None:
        while not self._ended.wait(self.interval):
            try:
                dist.monitored_barrier(self._group, self.timeout, wait_all_ranks=True)
            except RuntimeError as error:
                # At the end of a training, another process may have left a moment before this one.
                if self._ended.wait(5):
                    return
                print(f'{self._message(rank, str(error))}\n{error}', file=sys.stderr, flush=True)
                os._exit(1)

    def _message(self, rank: int, error: str) -> str:
        seconds = self.timeout.total_seconds()
        if rank != 0:
            return (
                f'The training ends: {self._names[0]} did not answer {self._names[rank]} for {seconds:g} s, '
                'or has found a process that does not answer and named it in its log.')
        missing = re.search(r'Ranks? ([\d, ]+) failed to pass', error)
        ranks = [int(number) for number in re.findall(r'\d+', missing[1])] if missing else []
        names = ', '.join(self._names[number] for number in ranks) or 'a process'
        return f'The training ends: {names} did not answer {self._names[0]} for {seconds:g} s, or has ended.'
