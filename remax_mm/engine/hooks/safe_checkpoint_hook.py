"""Checkpoints that survive a crash, a full disk and damaged files."""
import errno
import os
import re
from collections import deque
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Deque, Dict, Iterator, Optional, Union

from mmdet.registry import HOOKS
from mmengine.dist import broadcast_object_list, is_main_process
from mmengine.fileio import LocalBackend, get_file_backend, register_backend
from mmengine.hooks import CheckpointHook
from mmengine.runner import CheckpointLoader, Runner

LAST_CHECKPOINT = 'last_checkpoint'  # mmengine's name of the file that names the last checkpoint
TEMPORARY = '.tmp'
NO_SPACE = (errno.ENOSPC, errno.EDQUOT)


def write_file(path: Path, content: bytes) -> None:
    """Write a file so that at any time there is the old content or the new one, on the disk too.

    Raises:
        OSError: the file cannot be written; the old content stays.
    """
    temporary = path.with_name(path.name + TEMPORARY)
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        temporary.write_bytes(content)
        _flush(temporary)
        os.replace(temporary, path)
        _flush(path.parent)
    except OSError as error:
        temporary.unlink(missing_ok=True)
        raise OSError(error.errno, f'Cannot write {path}: {error.strerror}') from error


def _flush(path: Path) -> None:
    """Wait until a file, or the names in a folder, are on the disk."""
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        # Some network file systems cannot flush folders.
        if not (path.is_dir() and error.errno in (errno.EINVAL, errno.ENOTSUP, errno.ENOSYS)):
            raise
    finally:
        os.close(descriptor)


class SafeLocalBackend(LocalBackend):
    """mmengine's local files, written by :func:`write_file`."""

    def put(self, obj: bytes, filepath: Union[str, Path]) -> None:
        """Write ``obj`` to ``filepath``."""
        write_file(Path(filepath), obj)


register_backend('safe_local', SafeLocalBackend)


def check_resumable(checkpoint: Any, source: str) -> None:
    """Check that a training can go on from a checkpoint.

    Raises:
        ValueError: the checkpoint has no state of a training, such as the best checkpoints.
    """
    content = checkpoint if isinstance(checkpoint, dict) else {}
    missing = [key for key in ('meta', 'message_hub', 'optimizer') if not isinstance(content.get(key), dict)]
    if missing:
        raise ValueError(
            f'Expected {source} to be a checkpoint to resume from, but it has no {" and no ".join(missing)}; '
            'to start a new training from its weights, use `load_from`')


def last_checkpoint(work_dir: Union[str, Path]) -> Optional[Path]:
    """The path in the file ``last_checkpoint`` of a training, None if the file is missing or empty."""
    pointer = Path(work_dir, LAST_CHECKPOINT)
    path = pointer.read_text(errors='replace').strip('\0\n ') if pointer.is_file() else ''
    return Path(path) if path else None


def newest_readable_checkpoint(runner: Runner, folder: Path, filename_tmpl: str) -> Optional[str]:
    """Find the checkpoint to resume from: the last one, or else the newest one that can be read.

    Args:
        runner: Its log names the checkpoints that cannot be read.
        folder: Folder of the checkpoints.
        filename_tmpl: Their names, with ``{}`` for the number of the iteration or epoch.

    Returns:
        The path; None if nothing was saved yet.

    Raises:
        ValueError: no checkpoint can be read.
    """
    pattern = re.compile(re.escape(filename_tmpl).replace(r'\{\}', r'(\d+)'))
    named = [(pattern.fullmatch(path.name), path) for path in folder.glob('*')]
    saved = [path for _, path in sorted(((int(name[1]), path) for name, path in named if name), reverse=True)]
    last = last_checkpoint(runner.work_dir)
    if last is None and saved:
        runner.logger.warning(f'The file {LAST_CHECKPOINT} in {runner.work_dir} is missing or empty.')

    candidates = [*([] if last is None else [last]), *(path for path in saved if path != last)]
    errors = []
    for path in candidates:
        try:
            check_resumable(CheckpointLoader.load_checkpoint(str(path), 'cpu', logger='silent'), str(path))
        except (OSError, ValueError) as error:
            runner.logger.warning(f'Cannot resume from {path}: {error}')
            errors.append(str(error))
        else:
            runner.logger.info(f'Resuming from {path}.')
            return str(path)
    if errors:
        raise ValueError(
            f'Expected a checkpoint to resume from in {folder}, but none of {len(errors)} can be '
            f'read: {"; ".join(errors)}')
    return None


@contextmanager
def one_sentence_if_disk_is_full(work_dir: str) -> Iterator[None]:
    """Turn the error of a full disk, whoever writes, into a program exit with one sentence."""
    try:
        yield
    except OSError as error:
        if error.errno not in NO_SPACE:
            raise
        last = last_checkpoint(work_dir)
        advice = 'No checkpoint was saved yet.'
        if last is not None:
            advice = f'The last complete checkpoint is {last}; continue with --resume.'
        raise SystemExit(f'Training stopped because the disk is full ({error.strerror}). {advice}') from None


@HOOKS.register_module()
class SafeCheckpointHook(CheckpointHook):
    """mmengine's ``CheckpointHook``, but no crash and no full disk costs a finished checkpoint.

    Checkpoints and the file ``last_checkpoint`` are written under a temporary name, flushed to the disk and
    renamed. The checkpoints that ``max_keep_ckpts`` and ``save_best`` replace are deleted afterwards, so the
    disk needs space for one more. A training that resumes without a given checkpoint takes the last one, or
    the newest one that can be read. A resumed training deletes only files in its own folder, whatever paths
    its checkpoint names.

    Arguments are those of ``CheckpointHook``. On remote storage, it writes and deletes as ``CheckpointHook``.
    """

    def before_run(self, runner: Runner) -> None:
        """Choose the checkpoint to resume from, if none is given."""
        folder = self._local_folder(runner)
        if not runner._resume or runner._load_from is not None or folder is None:
            return
        chosen = [
            newest_readable_checkpoint(runner, folder, self.filename_tmpl) if is_main_process() else None
        ]
        broadcast_object_list(chosen)
        runner._load_from = chosen[0]
        if runner._load_from is None:
            runner.logger.info('There is no checkpoint to resume from: training starts from the beginning.')
            runner._resume = False

    def after_load_checkpoint(self, runner: Runner, checkpoint: Dict[str, Any]) -> None:
        """Check the checkpoint of a resumed training."""
        if runner._resume:
            check_resumable(checkpoint, runner._load_from)

    def before_train(self, runner: Runner) -> None:
        """Prepare the folder of the checkpoints."""
        folder = self._local_folder(runner)
        self._is_local = folder is not None
        if folder is not None:
            self._correct_paths(runner, folder)
            self.backend_args = dict(backend='safe_local')
            if is_main_process():
                self._delete_unfinished_files(Path(runner.work_dir), folder)
        super().before_train(runner)
        if self.max_keep_ckpts > 0:
            self.keep_ckpt_ids: Deque[int] = deque(self.keep_ckpt_ids)  # without a maximum length

    def _local_folder(self, runner: Runner) -> Optional[Path]:
        """Folder of the checkpoints, None on remote storage."""
        root = runner.work_dir if self.out_dir is None else self.out_dir
        if self.file_client_args is not None or not isinstance(
                get_file_backend(root, backend_args=self.backend_args), LocalBackend):
            return None
        return Path(root) if str(root) == runner.work_dir else Path(root, Path(runner.work_dir).name)

    def _delete_unfinished_files(self, work_dir: Path, folder: Path) -> None:
        """Delete what a killed process left."""
        suffix = Path(self.filename_tmpl).suffix
        for path in (*folder.glob(f'*{suffix}{TEMPORARY}'), work_dir / f'{LAST_CHECKPOINT}{TEMPORARY}'):
            path.unlink(missing_ok=True)

    def _correct_paths(self, runner: Runner, folder: Path) -> None:
        """Let the paths of a resumed training, which will be deleted, name checkpoints in its folder."""
        info = runner.message_hub.runtime_info
        for key in [key for key in info if key.startswith('best_ckpt')]:
            path = folder / Path(str(info[key])).name
            info[key] = str(path) if path.name.startswith('best_') and path.is_file() else None
        if 'keep_ckpt_ids' in info:
            info['keep_ckpt_ids'] = [step for step in info['keep_ckpt_ids'] if isinstance(step, int)]

    def _save_checkpoint_with_step(self, runner: Runner, step: int, meta: dict) -> None:
        """Save a checkpoint, then name it in ``last_checkpoint``, then delete the oldest one."""
        if not self._is_local:
            super()._save_checkpoint_with_step(runner, step, meta)
            return
        # The checkpoint also lists the one that is deleted below: if the process is killed in between, the
        # resumed training deletes it.
        if self.max_keep_ckpts > 0 and step not in self.keep_ckpt_ids:
            self.keep_ckpt_ids.append(step)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))
        name = self.filename_tmpl.format(step)
        self.last_ckpt = str(Path(self.out_dir, name))
        runner.message_hub.update_info('last_ckpt', self.last_ckpt)
        runner.save_checkpoint(
            self.out_dir,
            name,
            save_optimizer=self.save_optimizer,
            save_param_scheduler=self.save_param_scheduler,
            meta=meta,
            by_epoch=self.by_epoch,
            backend_args=self.backend_args,
            **self.args)
        if is_main_process():
            write_file(Path(runner.work_dir, LAST_CHECKPOINT), self.last_ckpt.encode())

        while 0 < self.max_keep_ckpts < len(self.keep_ckpt_ids):
            oldest = Path(self.out_dir, self.filename_tmpl.format(self.keep_ckpt_ids.popleft()))
            if is_main_process():
                oldest.unlink(missing_ok=True)
            runner.message_hub.update_info('keep_ckpt_ids', list(self.keep_ckpt_ids))

    def _save_best_checkpoint(self, runner: Runner, metrics: dict) -> None:
        """Save a checkpoint if it is the best one, then delete the one that was the best so far."""
        if not (self.save_best and self._is_local):
            super()._save_best_checkpoint(runner, metrics)
            return
        # mmengine deletes the paths that it finds here before it writes the new ones, so it finds none.
        before = self._best_paths()
        self._set_best_paths(dict.fromkeys(before))
        super()._save_best_checkpoint(runner, metrics)

        after = self._best_paths()
        self._set_best_paths({metric: after[metric] or path for metric, path in before.items()})
        for metric, path in before.items():
            if path and after[metric] not in (None, path) and is_main_process():
                Path(path).unlink(missing_ok=True)

    def _best_paths(self) -> Dict[str, Optional[str]]:
        """The best checkpoint by each metric of ``save_best``."""
        if len(self.key_indicators) == 1:
            return {'': self.best_ckpt_path}
        return dict(self.best_ckpt_path_dict)

    def _set_best_paths(self, paths: Dict[str, Optional[str]]) -> None:
        if len(self.key_indicators) == 1:
            self.best_ckpt_path = paths['']
        else:
            self.best_ckpt_path_dict = paths
