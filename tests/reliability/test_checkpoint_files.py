"""A kill, a full disk or a damaged file costs no finished checkpoint."""
import errno
import itertools
import multiprocessing
import os
import shlex
import shutil
import signal
import subprocess
from pathlib import Path
from types import SimpleNamespace
from typing import Any, Callable, Dict, List, Optional

import pytest
import torch
from mmengine.evaluator import BaseMetric
from mmengine.logging import MessageHub
from mmengine.model import BaseModel
from mmengine.runner import Runner
from torch import Tensor, nn

from remax_mm.engine import SafeCheckpointHook, one_sentence_if_disk_is_full
from remax_mm.engine.hooks.safe_checkpoint_hook import newest_readable_checkpoint
from tests.reliability.brightness import RUN_SCRIPT, RUN_SCRIPT_ENVIRONMENT, run_script

SCORES = [0.3, 0.5, 0.4, 0.7, 0.6, 0.8]
ITERATIONS = len(SCORES)
NUMBERS = itertools.count()  # of the experiments, whose names must differ


class OneWeight(BaseModel):
    """Learns the mean of its inputs."""

    def __init__(self) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.zeros(()))

    def forward(self, inputs: Tensor, mode: str = 'tensor') -> Any:
        return dict(loss=(self.weight - inputs.float().mean())**2) if mode == 'loss' else [self.weight]


class Score(BaseMetric):
    """One of ``SCORES`` after each iteration."""

    def process(self, data_batch: Any, data_samples: Any) -> None:
        self.results.append(0)

    def compute_metrics(self, results: list) -> dict:
        score = SCORES[MessageHub.get_current_instance().get_info('iter')]
        return dict(score=score, error=1 - score)


def _runner(work_dir: Path,
            resume: bool = False,
            iterations: int = ITERATIONS,
            load_from: Optional[str] = None,
            **options: Any) -> Runner:
    checkpoint = dict(type='SafeCheckpointHook', by_epoch=False, interval=1, max_keep_ckpts=1)
    dataloader = dict(
        batch_size=2,
        dataset=torch.full((8, ), 3.),
        sampler=dict(type='InfiniteSampler', shuffle=False),
        collate_fn=lambda samples: dict(inputs=torch.stack(samples)))
    return Runner(
        model=OneWeight(),
        work_dir=str(work_dir),
        train_dataloader=dataloader,
        train_cfg=dict(by_epoch=False, max_iters=iterations, val_interval=1),
        val_dataloader=dict(dataloader, sampler=dict(type='DefaultSampler', shuffle=False)),
        val_cfg=dict(),
        val_evaluator=[Score()],
        optim_wrapper=dict(optimizer=dict(type='AdamW', lr=0.1)),
        default_hooks=dict(
            checkpoint=dict(checkpoint, **options), logger=dict(type='LoggerHook', interval=1)),
        resume=resume,
        load_from=load_from,
        log_level='ERROR',
        default_scope='mmdet',
        experiment_name=f'checkpoint_files_{next(NUMBERS)}')


def _readable(path: Path) -> dict:
    return torch.load(path, weights_only=True)


def _names(folder: Path) -> List[str]:
    """Names of all files of checkpoints in a folder, unfinished ones included."""
    return sorted(path.name for path in folder.glob('*') if path.is_file() and path.suffix != '.py')


@pytest.fixture(scope='module')
def uninterrupted(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder of a training that was never interrupted and kept all checkpoints."""
    folder = tmp_path_factory.mktemp('uninterrupted')
    _runner(folder, max_keep_ckpts=-1, save_best='score', rule='greater').train()
    return folder


# ---- the same files as mmengine's hook


@pytest.mark.parametrize(
    'options', [
        dict(max_keep_ckpts=2),
        dict(max_keep_ckpts=-1, interval=2),
        dict(max_keep_ckpts=1, save_best='score', rule='greater'),
        dict(max_keep_ckpts=2, interval=3, save_best=['score', 'error'], rule=['greater', 'less']),
        dict(max_keep_ckpts=1, interval=4, save_last=False, save_best='error', rule='greater'),
        dict(interval=2, save_best='score', rule='less', filename_tmpl='at_{}.pth'),
    ],
    ids=str)
def test_hook__keeps_the_files_of_mmengine(options: dict, tmp_path: Path) -> None:
    folders = dict(CheckpointHook=tmp_path / 'theirs', SafeCheckpointHook=tmp_path / 'ours')
    for kind, folder in folders.items():
        _runner(folder, iterations=4, type=kind, **options).train()
        _runner(folder, iterations=ITERATIONS, resume=True, type=kind, **options).train()

    theirs, ours = folders.values()
    assert _names(ours) == _names(theirs) and 'last_checkpoint' in _names(ours)
    assert Path((ours / 'last_checkpoint').read_text()).name == Path(
        (theirs / 'last_checkpoint').read_text()).name
    for name in _names(theirs):
        if name.endswith('.pth'):
            expected, found = _readable(theirs / name), _readable(ours / name)
            assert set(found) == set(expected) and found['meta']['iter'] == expected['meta']['iter']
            torch.testing.assert_close(found['state_dict'], expected['state_dict'], rtol=0, atol=0)


# ---- kill


def _train_until_killed(folder: Path, number: int) -> None:
    """Train in this process, which is killed at the ``number``-th operation on files of checkpoints."""
    torch.set_num_threads(1)
    count = 0

    def kill_at_number(operation: Callable, half_done: Callable = lambda *_: None) -> Callable:

        def counted(*arguments: Any, **options: Any) -> Any:
            nonlocal count
            count += 1
            if count == number:
                half_done(*arguments)
                os.kill(os.getpid(), signal.SIGKILL)
            return operation(*arguments, **options)

        return counted

    write = Path.write_bytes
    Path.write_bytes = kill_at_number(write, lambda path, content: write(path, content[:len(content) // 2]))
    Path.unlink = kill_at_number(Path.unlink)
    os.replace = kill_at_number(os.replace)
    os.fsync = kill_at_number(os.fsync)
    _runner(folder, save_best='score', rule='greater').train()


def _survives_kill(number: int, folder: Path, uninterrupted: Path) -> bool:
    """Kill a training, check its files and finish it. Returns False if it ended before the kill."""
    process = multiprocessing.get_context('fork').Process(target=_train_until_killed, args=(folder, number))
    process.start()
    process.join(120)
    assert process.exitcode in (0, -signal.SIGKILL)

    left = [path for path in folder.glob('*.pth')]
    for path in left:
        assert _readable(path)['meta']['iter'] == int(path.stem.split('_')[-1])
    steps = [int(path.stem.split('_')[-1]) for path in left if path.name.startswith('iter_')]
    resumed = _runner(folder, resume=True, save_best='score', rule='greater')
    resumed.train()
    assert resumed._train_loop._iter == ITERATIONS
    if steps:
        assert int(Path(resumed._load_from).stem.split('_')[-1]) >= max(steps) - 1

    expected, found = _readable(uninterrupted / 'iter_6.pth'), _readable(folder / 'iter_6.pth')
    torch.testing.assert_close(found['state_dict'], expected['state_dict'], rtol=0, atol=0)
    torch.testing.assert_close(found['optimizer']['state'], expected['optimizer']['state'], rtol=0, atol=0)
    assert not list(folder.glob('*.tmp'))
    return process.exitcode != 0


def test_kill__between_write_and_rename(tmp_path: Path, uninterrupted: Path) -> None:
    # A file is written, flushed, renamed, and its folder flushed. The first iteration writes five files:
    # checkpoint, `last_checkpoint`, best checkpoint, and the first two again. The second one begins at 21.
    numbers = (21, 23, 24, 27)
    for number in numbers:
        assert _survives_kill(number, tmp_path / str(number), uninterrupted)
    print(f'Killed at {len(numbers)} operations on files: each time the training went on')


@pytest.mark.slow
def test_kill__at_every_operation(tmp_path: Path, uninterrupted: Path) -> None:
    number = 1
    while _survives_kill(number, tmp_path / str(number), uninterrupted):
        number += 1
    assert number > 4 * 2 * ITERATIONS
    print(f'Killed at each of {number - 1} operations on files: each time the training went on')


# ---- full disk


def _fail_to_write(patch: pytest.MonkeyPatch, name: str, error_number: int) -> None:
    """Let files whose name has ``name`` in it be written half, and then fail."""
    write = Path.write_bytes

    def failing(path: Path, content: bytes) -> int:
        if name in path.name:
            write(path, content[:len(content) // 2])
            raise OSError(error_number, os.strerror(error_number))
        return write(path, content)

    patch.setattr(Path, 'write_bytes', failing)


@pytest.mark.parametrize('name', ['iter_4', 'best_score_iter_4', 'last_checkpoint'])
@pytest.mark.parametrize('error_number', [errno.ENOSPC, errno.EDQUOT, errno.EIO])
def test_failed_write__the_last_good_checkpoint_stays(name: str, error_number: int, tmp_path: Path,
                                                      uninterrupted: Path,
                                                      monkeypatch: pytest.MonkeyPatch) -> None:
    options = dict(save_best='score', rule='greater', max_keep_ckpts=1)
    _runner(tmp_path, iterations=3, **options).train()
    with monkeypatch.context() as patch:
        _fail_to_write(patch, name, error_number)
        with pytest.raises(OSError, match=f'Cannot write .*{name}.*: {os.strerror(error_number)}') as caught:
            _runner(tmp_path, resume=True, **options).train()
    assert caught.value.errno == error_number

    complete = 'iter_3' if name == 'iter_4' else 'iter_4'
    assert {'best_score_iter_2.pth', f'{complete}.pth', 'last_checkpoint'} <= set(_names(tmp_path))
    assert not list(tmp_path.glob('*.tmp'))
    for path in tmp_path.glob('*.pth'):
        _readable(path)
    _runner(tmp_path, resume=True, **options).train()
    expected, found = _readable(uninterrupted / 'iter_6.pth'), _readable(tmp_path / 'iter_6.pth')
    torch.testing.assert_close(found['state_dict'], expected['state_dict'], rtol=0, atol=0)


FULL_DISK = """
mount -t tmpfs -o size=400k tmpfs {disk}
{command} tools/train.py {config} --work-dir {disk}/run --cfg-options \\
    train_cfg.max_iters=1000 train_cfg.val_interval=1001 \\
    default_hooks.checkpoint.interval=1 default_hooks.checkpoint.max_keep_ckpts=-1
code=$?
cp -r {disk}/run {copy}
exit $code
"""


@pytest.mark.slow
def test_full_disk__training_stops_with_one_sentence(brightness: Path, tmp_path: Path) -> None:
    (tmp_path / 'disk').mkdir()
    script = FULL_DISK.format(
        disk=tmp_path / 'disk',
        copy=tmp_path / 'copy',
        command=shlex.join(RUN_SCRIPT),
        config=brightness / 'tiny.py')
    namespace = ['unshare', '--user', '--map-root-user', '--mount']
    if shutil.which('unshare') is None or subprocess.run([*namespace, 'true']).returncode != 0:
        pytest.skip('this system mounts no file systems for its users')
    done = subprocess.run([*namespace, 'sh', '-c', script],
                          env=RUN_SCRIPT_ENVIRONMENT,
                          capture_output=True,
                          text=True,
                          timeout=300)
    print(done.stderr)
    assert done.returncode == 1
    assert 'Traceback' not in done.stderr
    sentence = done.stderr.strip().splitlines()[-1]
    last = Path((tmp_path / 'copy' / 'last_checkpoint').read_text())
    assert 'disk is full (Cannot write' in sentence and f'last complete checkpoint is {last};' in sentence
    saved = list((tmp_path / 'copy').glob('iter_*.pth'))
    assert len(saved) > 1 and last.name in [path.name for path in saved]
    for path in saved:
        assert _readable(path)['meta']['iter'] == int(path.stem.split('_')[1])


def test_full_disk__of_any_file(tmp_path: Path) -> None:
    with pytest.raises(SystemExit, match='disk is full .No space left.* No checkpoint was saved yet'):
        with one_sentence_if_disk_is_full(str(tmp_path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    (tmp_path / 'last_checkpoint').write_text('run/iter_2.pth')
    with pytest.raises(
            SystemExit, match='disk is full .No space left.* checkpoint is run/iter_2.pth; continue'):
        with one_sentence_if_disk_is_full(str(tmp_path)):
            raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC))
    with pytest.raises(PermissionError):
        with one_sentence_if_disk_is_full(str(tmp_path)):
            raise PermissionError(errno.EACCES, os.strerror(errno.EACCES))


# ---- resume


class _Log:
    """Keeps what a runner's logger gets."""

    def __init__(self) -> None:
        self.lines: List[str] = []
        self.info = self.warning = self.lines.append


@pytest.fixture
def saved(uninterrupted: Path, tmp_path: Path) -> Path:
    """Folder with the checkpoints of iterations 4, 5 and 6; ``last_checkpoint`` names the last one."""
    folder = tmp_path / 'run'
    folder.mkdir()
    for step in (4, 5, 6):
        shutil.copy(uninterrupted / f'iter_{step}.pth', folder)
    shutil.copy(uninterrupted / 'best_score_iter_6.pth', folder)
    (folder / 'last_checkpoint').write_text(str(folder / 'iter_6.pth'))
    return folder


def _choose(folder: Path, log: Optional[_Log] = None) -> Optional[str]:
    runner = SimpleNamespace(work_dir=str(folder), logger=log or _Log())
    found = newest_readable_checkpoint(runner, folder, 'iter_{}.pth')
    return found and Path(found).name


def _change_a_byte(path: Path) -> None:
    content = bytearray(path.read_bytes())
    start = content.index(b'PK')  # of the second record, whose content is weights
    content[content.index(b'PK', start + 1) - 100] ^= 1
    path.write_bytes(content)


DAMAGES: Dict[str, Callable[[Path], Any]] = {
    'empty': lambda path: path.write_bytes(b''),
    'text': lambda path: path.write_text('a log'),
    'list': lambda path: torch.save([1, 2], path),
    'weights only': lambda path: torch.save(_readable(path)['state_dict'], path),
    'best checkpoint': lambda path: shutil.copy(path.with_name('best_score_iter_6.pth'), path),
    'folder': lambda path: (path.unlink(), path.mkdir()),
    'missing': lambda path: path.unlink(),
    'a changed byte': _change_a_byte,
}


@pytest.mark.parametrize('damage', list(DAMAGES))
def test_resume__names_a_damaged_checkpoint_and_takes_the_one_before(damage: str, saved: Path) -> None:
    DAMAGES[damage](saved / 'iter_6.pth')
    log = _Log()
    assert _choose(saved, log) == 'iter_5.pth'
    named, chosen = log.lines
    assert named.startswith(f'Cannot resume from {saved / "iter_6.pth"}: ')
    assert chosen == f'Resuming from {saved / "iter_5.pth"}.'


def test_resume__checkpoint_of_any_length(saved: Path) -> None:
    path = saved / 'iter_6.pth'
    content = path.read_bytes()
    lengths = [*range(0, len(content), len(content) // 100), *range(len(content) - 100, len(content))]
    for length in lengths:
        path.write_bytes(content[:length])
        log = _Log()
        assert _choose(saved, log) == 'iter_5.pth', length
        assert f'Cannot resume from {path}' in log.lines[0]
    path.write_bytes(content)
    assert _choose(saved) == 'iter_6.pth'
    print(f'Truncated to {len(lengths)} lengths: each was named and left out')


@pytest.mark.parametrize('content, named', [
    (None, 'The file last_checkpoint in'),
    (b'', 'The file last_checkpoint in'),
    (b'\0\0\0', 'The file last_checkpoint in'),
    (b'/elsewhere/iter_6.pth', 'Cannot resume from /elsewhere/iter_6.pth: '),
    (b'iter_6', 'Cannot resume from iter_6: '),
    (b'\xff\0\xfe', 'Cannot resume from '),
])
def test_resume__wrong_last_checkpoint(content: Optional[bytes], named: str, saved: Path) -> None:
    pointer = saved / 'last_checkpoint'
    pointer.unlink()
    if content is not None:
        pointer.write_bytes(content)
    log = _Log()
    assert _choose(saved, log) == 'iter_6.pth'
    assert log.lines[0].startswith(named)


def test_resume__goes_back_if_told(saved: Path) -> None:
    (saved / 'last_checkpoint').write_text(str(saved / 'iter_4.pth'))
    assert _choose(saved) == 'iter_4.pth'


def test_resume__nothing_readable(saved: Path) -> None:
    for path in saved.glob('iter_*.pth'):
        path.write_bytes(b'')
    with pytest.raises(ValueError, match=r'none of 3 can be read: .*iter_6.pth, but it is empty; .*iter_4'):
        _choose(saved)


@pytest.mark.parametrize('content', ['', None])
def test_resume__nothing_saved(content: Optional[str], tmp_path: Path) -> None:
    if content is not None:
        (tmp_path / 'last_checkpoint').write_text(content)
    assert _choose(tmp_path) is None
    _runner(tmp_path, resume=True, iterations=1).train()
    assert (tmp_path / 'iter_1.pth').is_file()


def test_train__resumes_from_the_newest_readable_checkpoint(brightness: Path, tmp_path: Path,
                                                            capsys: pytest.CaptureFixture) -> None:
    run = tmp_path / 'run'
    shutil.copytree(brightness / 'run', run)
    (run / 'last_checkpoint').write_text(str(run / 'iter_4.pth'))
    (run / 'iter_4.pth').write_bytes((run / 'iter_4.pth').read_bytes()[:5000])
    with pytest.raises(ValueError, match='iter_4.pth, but it is truncated'):
        run_script('tools/train.py', brightness / 'tiny.py', '--work-dir', run, '--resume',
                   run / 'iter_4.pth')

    run_script('tools/train.py', brightness / 'tiny.py', '--work-dir', run, '--resume')
    assert f'Cannot resume from {run / "iter_4.pth"}' in capsys.readouterr().out
    expected = _readable(brightness / 'run' / 'iter_4.pth')
    torch.testing.assert_close(
        _readable(run / 'iter_4.pth')['state_dict'], expected['state_dict'], rtol=0, atol=0)


@pytest.mark.parametrize('attack', ['best_ckpt', 'keep_ckpt_ids'])
def test_resume__deletes_nothing_outside_of_its_folder(attack: str, saved: Path) -> None:
    checkpoint = _readable(saved / 'iter_4.pth')
    precious = saved.parent / 'precious.pth'
    precious.write_text('mine')
    wrong = dict(best_ckpt=str(precious), keep_ckpt_ids=['../precious', 3, 4])
    checkpoint['message_hub']['runtime_info'][attack] = wrong[attack]
    torch.save(checkpoint, saved / 'iter_4.pth')
    runner = _runner(
        saved,
        resume=True,
        load_from=str(saved / 'iter_4.pth'),
        filename_tmpl='{}.pth' if attack == 'keep_ckpt_ids' else None,
        save_best='score',
        rule='greater')
    runner.train()
    assert precious.read_text() == 'mine'
    assert list(saved.glob('best_score_*6.pth'))


def _choose_in_two_processes(rank: int, folder: Path) -> None:
    torch.set_num_threads(1)
    torch.distributed.init_process_group('gloo', f'file://{folder / "meeting"}', rank=rank, world_size=2)
    log = _Log()
    runner = SimpleNamespace(work_dir=str(folder), logger=log, _resume=True, _load_from=None)
    SafeCheckpointHook(by_epoch=False).before_run(runner)
    (folder / f'chosen_{rank}').write_text(f'{Path(runner._load_from).name} after {len(log.lines)} lines')
    torch.distributed.destroy_process_group()


def test_resume__all_processes_take_the_same_checkpoint(saved: Path) -> None:
    (saved / 'iter_6.pth').write_bytes(b'')
    torch.multiprocessing.start_processes(_choose_in_two_processes, (saved, ), 2, start_method='fork')
    assert (saved / 'chosen_0').read_text() == 'iter_5.pth after 2 lines'
    assert (saved / 'chosen_1').read_text() == 'iter_5.pth after 0 lines'
