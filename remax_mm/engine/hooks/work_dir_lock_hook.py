"""One training at a time in a work directory."""
import atexit
import fcntl
import json
import os
import socket
import threading
import time
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, Dict, Iterator, Optional

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.hooks import Hook
from mmengine.runner import Runner

LOCK_FILE = 'train.lock'


def _machine() -> str:
    """A name of this start of this machine and, in a container, of its process ids."""
    return f'{Path("/proc/sys/kernel/random/boot_id").read_text().strip()} {os.readlink("/proc/self/ns/pid")}'


def _start_of(pid: int) -> Optional[str]:
    """When a process of this machine started, in clock ticks; None if it has ended."""
    try:
        state, *fields = Path(f'/proc/{pid}/stat').read_text().rpartition(')')[2].split()
    except (FileNotFoundError, ProcessLookupError):
        return None
    return None if state in 'ZX' else fields[18]


class WorkDirLock:
    """A file that says which process uses a folder.

    A lock of a process of this machine is stale if this process has ended. On another machine, its owner
    touches the file every ``beat`` seconds, and a lock is stale if that does not happen for ``stale_after``
    seconds; clocks of different machines are not compared.

    Args:
        path: The file. It does not exist while nobody has the lock.
        beat: Seconds between two signs of life.
        stale_after: Seconds without sign of life after which the lock of another machine is stale.

    Attributes:
        lost: Whether another process has taken the lock since.
    """

    def __init__(self, path: Path, beat: float, stale_after: float) -> None:
        self.path, self.beat, self.stale_after = path, beat, stale_after
        self.lost = False
        self._content = ''
        self._released = threading.Event()

    def acquire(self) -> Optional[str]:
        """Take the lock.

        Returns:
            What the log should say about a stale lock; None if there was none.

        Raises:
            RuntimeError: another training uses the folder.
        """
        with self._exclusive() as descriptor:
            former = self.path.read_text()
            if former and self._is_alive(former):
                raise RuntimeError(
                    f'Expected no other training in {self.path.parent}, but {_describe(former)} uses it. '
                    f'Wait for its end or choose another --work-dir. If it has ended, remove {self.path}.')
            self._content = json.dumps(
                dict(
                    pid=os.getpid(),
                    host=socket.gethostname(),
                    started=time.strftime('%Y-%m-%d %H:%M:%S'),
                    machine=_machine(),
                    ticks=_start_of(os.getpid())))
            os.ftruncate(descriptor, 0)
            os.pwrite(descriptor, self._content.encode(), 0)
        threading.Thread(target=self._beat, daemon=True).start()
        return f'Removed the lock of {_describe(former)}, which has ended.' if former else None

    def release(self) -> None:
        """Remove the file if it still is our own."""
        if not self._content or self._released.is_set():
            return
        self._released.set()
        with self._exclusive():
            if self.path.read_text() in (self._content, ''):
                self.path.unlink()

    @contextmanager
    def _exclusive(self) -> Iterator[int]:
        """Keep other processes from changing the file; not on file systems without locks."""
        while True:
            descriptor = os.open(self.path, os.O_RDWR | os.O_CREAT, 0o644)
            try:
                with suppress(OSError):
                    fcntl.flock(descriptor, fcntl.LOCK_EX)
                # The file may have been removed while this process waited.
                if os.fstat(descriptor).st_nlink:
                    yield descriptor
                    return
            finally:
                os.close(descriptor)

    def _is_alive(self, content: str) -> bool:
        owner = _parse(content)
        if owner.get('machine') == _machine():
            # This process itself may train again after a training that raised an error.
            return owner['pid'] != os.getpid() and _start_of(owner['pid']) == owner['ticks']
        before = self._modified()
        end = time.monotonic() + self.stale_after
        while time.monotonic() < end:
            time.sleep(min(self.beat, 1))
            if self._modified() != before:
                return True
        return False

    def _modified(self) -> int:
        # Network file systems look up the attributes when a file is opened.
        with self.path.open() as file:
            return os.fstat(file.fileno()).st_mtime_ns

    def _beat(self) -> None:
        while not self._released.wait(self.beat):
            with suppress(OSError):
                if self.path.read_text() != self._content:
                    self.lost = True
                    return
                os.utime(self.path)


def _parse(content: str) -> Dict[str, Any]:
    try:
        owner = json.loads(content)
    except ValueError:
        return {}
    return owner if isinstance(owner, dict) else {}


def _describe(content: str) -> str:
    owner = _parse(content)
    return (f'the training with process id {owner.get("pid")} on {owner.get("host")}, started '
            f'{owner.get("started")},')


@HOOKS.register_module()
class WorkDirLockHook(Hook):
    """Refuse to train in the work directory of a running training.

    Args:
        beat: Seconds between two signs of life of the training.
        stale_after: Seconds without sign of life after which a training on another machine counts as ended.

    Raises:
        RuntimeError: another training uses the work directory, or has taken it over.
    """

    # Before any hook changes files.
    priority = 'HIGHEST'

    def __init__(self, beat: float = 10, stale_after: float = 120) -> None:
        self.beat, self.stale_after = beat, stale_after
        self.lock: Optional[WorkDirLock] = None

    def before_train(self, runner: Runner) -> None:
        """Take the lock, in the first process."""
        error = [None]
        if is_main_process():
            self.lock = WorkDirLock(Path(runner.work_dir, LOCK_FILE), self.beat, self.stale_after)
            atexit.register(self.lock.release)
            try:
                note = self.lock.acquire()
                if note:
                    runner.logger.warning(note)
            except RuntimeError as refused:
                error = [str(refused)]
        broadcast_object_list(error)
        if error[0]:
            raise RuntimeError(error[0])

    def after_train_iter(self, runner: Runner, *args: Any, **kwargs: Any) -> None:
        """Stop if another training has taken the work directory, which happens after a long standstill."""
        if self.lock is not None and self.lock.lost:
            raise RuntimeError(f'Another training has taken over {runner.work_dir}, because this one gave no '
                               f'sign of life for {self.stale_after} s')

    def after_run(self, runner: Runner) -> None:
        """Release the lock."""
        if self.lock is not None:
            self.lock.release()
