"""The trainings of a study, several at a time: started, stopped, resumed, and read."""
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Dict, Iterable, Iterator, List, NamedTuple, Optional, Sequence

from mmengine.fileio import dump, load

from .metric_logs import read_log
from .study_plan import Run

RUN_FILE = 'run.json'
RESULT_FILE = 'test_metrics.json'
"""What :class:`FinalTestHook` writes."""

Metrics = Dict[str, float]

_PREFIX = 'coco_panoptic/'
# Exit codes of a training that was asked to stop, and of one that was loading
_STOPPED = (75, -signal.SIGTERM)
_SECONDS_TO_SAVE = 120.


class Outcome(NamedTuple):
    """What became of a run.

    Attributes:
        run: The run.
        test: Metrics on the test split: ``PQ``, ``SQ`` and ``RQ`` in percent, also with the suffixes ``_th``
            of things and ``_st`` of stuff. None for a run that failed or is not finished.
        curve: Metrics of each validation by iteration.
        seconds: Time of the training, all parts together.
        error: Last line of the log of a run that failed.
    """
    run: Run
    test: Optional[Metrics] = None
    curve: Optional[Dict[int, Metrics]] = None
    seconds: float = 0.
    error: str = ''


def read_outcome(run: Run) -> Outcome:
    """The outcome of a run so far.

    Raises:
        ValueError: the folder has a run with other settings.
    """
    path = run.folder / RUN_FILE
    if not path.is_file():
        if (run.folder / 'last_checkpoint').is_file():
            raise ValueError(f'Expected {RUN_FILE} beside the checkpoint in {run.folder}, but there is none; '
                             'choose another --work-dir')
        return Outcome(run)
    found = load(path)
    if found['settings'] != run.settings:
        raise ValueError(f'Expected a run of {run.settings} in {run.folder}, but it is one of '
                         f'{found["settings"]}; choose another --work-dir')
    curve = {int(iteration): metrics for iteration, metrics in found['curve'].items()}
    return Outcome(run, found['test'], curve, sum(found['seconds']), found['error'])


def reuse_runs(runs: Iterable[Run], folder: Path) -> List[Run]:
    """Copy finished runs with the same settings, such as those of another study, without their weights.

    Args:
        runs: Runs of a comparison; those that have a result or a checkpoint already are left alone.
        folder: The finished runs are below it.

    Returns:
        The runs that were copied.

    Raises:
        FileNotFoundError: there is no such folder.
    """
    if not folder.is_dir():
        raise FileNotFoundError(f'Expected a folder with finished runs, but {folder} does not exist')
    files = {path: load(path) for path in sorted(folder.rglob(RUN_FILE))}
    reused = []
    for run in runs:
        if any((run.folder / name).exists() for name in (RUN_FILE, 'last_checkpoint')):
            continue
        for path, found in files.items():
            if found.get('test') is not None and found['settings'] == run.settings:
                ignore = shutil.ignore_patterns('*.pth', 'last_checkpoint')
                shutil.copytree(path.parent, run.folder, ignore=ignore, dirs_exist_ok=True)
                _dump(dict(found, condition=run.condition, variant=run.variant), run.folder / RUN_FILE)
                reused.append(run)
                break
    return reused


def train_runs(runs: Sequence[Run],
               trainer: Path,
               jobs: int = 1,
               time_budget: Optional[float] = None) -> Iterator[Outcome]:
    """Train, and give the outcome of each run as soon as it ends or is stopped.

    An interrupted run continues from its last checkpoint. Each process uses one thread, unless the variable
    ``OMP_NUM_THREADS`` of the environment says otherwise; all share one GPU if there is one.

    Args:
        runs: Runs to train.
        trainer: Script tools/train.py.
        jobs: Number of runs at the same time.
        time_budget: Seconds after which running trainings are asked to save and stop, and no others start.
    """
    stop = threading.Event()
    timer = threading.Timer(time_budget or 0, stop.set)
    if time_budget is not None:
        timer.start()
    # One thread waits for each process.
    with ThreadPoolExecutor(jobs) as pool:
        try:
            for future in as_completed([pool.submit(_train, run, trainer, stop) for run in runs]):
                yield future.result()
        finally:  # also after Ctrl-C, which the trainings get as well
            stop.set()
            timer.cancel()


def _train(run: Run, trainer: Path, stop: threading.Event) -> Outcome:
    if stop.is_set():
        return read_outcome(run)
    run.folder.mkdir(parents=True, exist_ok=True)
    start = time.monotonic()
    _write_run(run, seconds=0)

    log = run.folder / 'train.log'
    command = [sys.executable, str(trainer), str(run.config), '--work-dir', str(run.folder)]
    command += ['--resume'] if (run.folder / 'last_checkpoint').is_file() else []
    with open(log, 'a') as file:
        process = subprocess.Popen([*command, '--cfg-options', *run.options],
                                   stdout=file,
                                   stderr=subprocess.STDOUT,
                                   env={
                                       'OMP_NUM_THREADS': '1',
                                       **os.environ
                                   })
    code = _wait(process, stop)

    error = ''
    if code != 0 and not (stop.is_set() and code in _STOPPED):
        error = ''.join(log.read_text(errors='replace').strip().splitlines()[-1:]) + f' (see {log})'
    _write_run(run, time.monotonic() - start, error, finished=code == 0)
    return read_outcome(run)


def _wait(process: subprocess.Popen, stop: threading.Event) -> int:
    """Exit code of a process; it is asked to save and stop when ``stop`` is set."""
    while process.poll() is None:
        if stop.wait(0.2):
            process.terminate()
            try:
                process.wait(_SECONDS_TO_SAVE)
            except subprocess.TimeoutExpired:
                process.kill()
    return process.wait()


def _write_run(run: Run, seconds: float, error: str = '', finished: bool = False) -> None:
    """Add a part of the training to the file of the run."""
    path = run.folder / RUN_FILE
    parts = load(path)['seconds'] if path.is_file() else []
    has_log = any(run.folder.glob('*/vis_data/scalars.json'))
    content = dict(
        condition=run.condition,
        variant=run.variant,
        seed=run.seed,
        settings=run.settings,
        seconds=[*parts, round(seconds, 1)] if seconds else parts,
        curve=_read_curve(run.folder) if has_log else {},
        test=_select_quality(load(run.folder / RESULT_FILE)) if finished else None,
        error=error)
    _dump(content, path)


def _dump(content: dict, path: Path) -> None:
    temporary = path.with_suffix('.tmp')
    dump(content, temporary, file_format='json', indent=2)
    os.replace(temporary, path)


def _read_curve(folder: Path) -> Dict[int, Metrics]:
    curve: Dict[int, Metrics] = {}
    for key, points in read_log(folder, folder.name).curves.items():
        for iteration, value in points:
            for name, selected in _select_quality({key: value}).items():
                curve.setdefault(iteration, {})[name] = selected
    return curve


def _select_quality(metrics: Metrics) -> Metrics:
    """Panoptic qualities of all classes, of things and of stuff."""
    return {
        key[len(_PREFIX):]: value
        for key, value in metrics.items() if key.startswith(_PREFIX) and key.count('/') == 1
    }
