"""The trainings of a study: several variants of a model, each with the same seeds.

With the same seed all runs see the same images in the same order with the same augmentations, and all weights
that two models share start from the same values.
"""
import os
import signal
import subprocess
import sys
import threading
import time
from concurrent.futures import ThreadPoolExecutor, as_completed
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Optional, Sequence

from mmengine.fileio import dump, load

from .metric_logs import read_log
from .studies import STUDIES

RUN_FILE = 'run.json'
RESULT_FILE = 'test_metrics.json'
"""What :class:`FinalTestHook` writes."""
EVALUATIONS = 6
"""Validations of a run, for the curves."""

Metrics = Dict[str, float]

_PREFIX = 'coco_panoptic/'
_STOPPED = (75, -signal.SIGTERM
            )  # exit codes of a training that was asked to stop, and of one that was loading
_SECONDS_TO_SAVE = 120.

# The final weights are tested once on images that no choice depends on.
_TEST_SPLIT = [
    'default_hooks.final_test.type=FinalTestHook',
    'test_dataloader.dataset.ann_file=annotations/panoptic_test.json',
    'test_dataloader.dataset.data_prefix.img=images/test/',
    'test_dataloader.dataset.data_prefix.seg=annotations/panoptic_test/',
]
_RELAXATION_LOG = 'default_hooks.relaxation_log.type=remax_mm.analysis.relaxation_log.RelaxationLogHook'


class Plan(NamedTuple):
    """Settings of a comparison.

    Attributes:
        study: Key of :data:`STUDIES`.
        variants: Names of variants of the study.
        seeds: Seeds of the runs of each variant.
        baseline: Variant that the others are compared with.
        conditions: Names of conditions of the study.
        iterations, lr: Of the runs; None for those of the condition or the study.
        num_slots: Slots of all models; None for that of the study.
        options: Overrides for all configs, as for ``--cfg-options`` of tools/train.py.
        log_relaxation: Whether the runs log what ReMask does, see :class:`RelaxationLogHook`.
    """
    study: str
    variants: Sequence[str]
    seeds: Sequence[int]
    baseline: str
    conditions: Sequence[str] = ('', )
    iterations: Optional[int] = None
    lr: Optional[float] = None
    num_slots: Optional[int] = None
    options: Sequence[str] = ()
    log_relaxation: bool = False


class Recipe(NamedTuple):
    """Iterations, learning rate and slots of runs; None for the slots of the configs."""
    iterations: int
    lr: float
    num_slots: Optional[int]

    def __str__(self) -> str:
        slots = f', {self.num_slots} slots' if self.num_slots else ''
        return f'{self.iterations} iterations, learning rate {self.lr:g}{slots}'


class Run(NamedTuple):
    """One training: its condition, variant, seed, config, overrides of the config, and folder."""
    condition: str
    variant: str
    seed: int
    config: Path
    options: List[str]
    folder: Path

    @property
    def name(self) -> str:
        """Name in messages."""
        return ', '.join(filter(None, (self.condition, self.variant, f'seed {self.seed}')))

    @property
    def settings(self) -> dict:
        """What identifies the result of the run."""
        return dict(config=self.config.name, options=self.options)


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


def find_recipe(plan: Plan, condition: str) -> Recipe:
    """What holds under a condition: what the plan says, or else the condition, or else the study."""
    study = STUDIES[plan.study]
    setting = study.conditions[condition]
    return Recipe(plan.iterations or setting.iterations or study.iterations, plan.lr or setting.lr
                  or study.lr, plan.num_slots or study.num_slots)


def plan_runs(plan: Plan, configs: Path, work_dir: Path) -> List[Run]:
    """All runs, seed by seed, so that an interrupted comparison has the same seeds of each variant.

    Args:
        plan: The comparison.
        configs: Folder ``configs/mini`` of this project.
        work_dir: Folder of the comparison.
    """
    return [
        _plan_run(plan, condition, variant, seed, configs, work_dir) for seed in plan.seeds
        for condition in plan.conditions for variant in plan.variants
    ]


def _plan_run(plan: Plan, condition: str, name: str, seed: int, configs: Path, work_dir: Path) -> Run:
    study = STUDIES[plan.study]
    variant, setting = study.variants[name], study.conditions[condition]
    iterations, lr, num_slots = find_recipe(plan, condition)
    interval = -(-iterations // EVALUATIONS)
    options = [
        f'randomness.seed={seed}',
        f'optim_wrapper.optimizer.lr={lr}',
        f'train_cfg.max_iters={iterations}',
        f'train_cfg.val_interval={interval}',
        f'param_scheduler.0.end={max(iterations // 10, 2)}',
        f'param_scheduler.1.milestones=[{iterations * 85 // 100},{iterations * 95 // 100}]',
        f'default_hooks.checkpoint.interval={interval}',
        'default_hooks.checkpoint.max_keep_ckpts=1',
        'default_hooks.checkpoint.save_best=None',
        *_TEST_SPLIT,
        *([f'{study.slots_key}={num_slots}'] if num_slots else []),
        *setting.options,
        *(option.replace('{prior}', str(1 / num_slots) if num_slots else 'None')
          for option in variant.options),
        *plan.options,
        *([_RELAXATION_LOG] if plan.log_relaxation else []),
    ]  # yapf: disable
    folder = work_dir / condition / name / f'seed{seed}'
    return Run(condition, name, seed, configs / variant.config, options, folder)


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
