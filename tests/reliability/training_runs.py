"""Trainings of a tiny ReMaX in processes of their own, which a test can interrupt, resume and compare."""
import json
import multiprocessing
import os
import signal
import sys
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

import torch
import torch.distributed as dist
from mmengine.config import Config
from mmengine.runner import Runner

from remax_mm.compat import prepare_launch
from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from tests.conftest import REPOSITORY
from tests.tiny_model import detector_config

CROP = (65, 65)
CHECKPOINT_INTERVAL = 2
VALIDATION_INTERVAL = 4


def write_data(root: Path) -> Path:
    """Six training and two validation images."""
    write_mini_panoptic(root, 6, 2, CROP[0], 0)
    return root


def training_config(data_root: Path, work_dir: Path, iterations: int = 5, **overrides: Any) -> Config:
    """A training with random augmentation, copy-paste and randomly sampled pixels.

    Args:
        data_root: from ``write_data``.
        work_dir: of the run.
        iterations: length of the training.
        overrides: keys of the config with ``__`` for each dot.
    """
    loading = [dict(type='LoadImageFromFile'), dict(type='LoadPanopticMap')]
    augmentation = [
        dict(type='RandomChoiceResize', scales=[(53, 53), (65, 65), (81, 81)], keep_ratio=True),
        dict(type='ColorPolicy'),
        dict(type='RandomPad', size=CROP),
        dict(type='RandomCrop', crop_size=CROP),
        dict(type='RandomFlip', prob=0.5)
    ]
    paste = dict(type='PanopticCopyPaste', partner_pipeline=loading + augmentation)
    loader = dict(num_workers=0, batch_size=2)
    dataset = dict(type='MiniPanopticMapDataset', data_root=str(data_root))
    packing = dict(type='PackPanopticInputs')
    config = Config.fromfile(REPOSITORY / 'configs' / '_base_' / 'default_runtime.py')
    test_pipeline = [loading[0], dict(type='Resize', scale=CROP, keep_ratio=True)]
    model = detector_config()
    model['panoptic_head'].update(num_things_classes=7, num_stuff_classes=5)
    config.merge_from_dict(
        dict(
            model=model,
            # The forked process inherits the visualizers of the tests before, by their names.
            visualizer=dict(name=str(work_dir)),
            train_dataloader=dict(
                **loader,
                sampler=dict(type='InfiniteSampler', shuffle=True),
                dataset=dict(
                    **dataset,
                    ann_file='annotations/panoptic_train.json',
                    data_prefix=dict(img='images/train/', seg='annotations/panoptic_train/'),
                    pipeline=loading + augmentation + [paste, packing])),
            val_dataloader=dict(
                **loader,
                sampler=dict(type='DefaultSampler', shuffle=False),
                dataset=dict(
                    **dataset,
                    ann_file='annotations/panoptic_val.json',
                    data_prefix=dict(img='images/val/', seg='annotations/panoptic_val/'),
                    test_mode=True,
                    pipeline=test_pipeline + [dict(type='LoadSegmentIds'), packing])),
            val_evaluator=dict(type='PanopticQualityMetric'),
            train_cfg=dict(type='ResumableTrainLoop', max_iters=iterations, val_interval=VALIDATION_INTERVAL),
            val_cfg=dict(type='ValLoop'),
            optim_wrapper=dict(
                type='OptimWrapper',
                optimizer=dict(type='AdamW', lr=2e-3, weight_decay=0.01),
                constructor='KernelDecayOptimWrapperConstructor'),
            param_scheduler=[
                dict(type='LinearLR', start_factor=0.1, by_epoch=False, begin=0, end=4),
                dict(type='PolyLR', power=0.9, by_epoch=False, begin=0, end=iterations)
            ],
            default_hooks=dict(
                logger=dict(interval=1), checkpoint=dict(interval=CHECKPOINT_INTERVAL, max_keep_ckpts=-1)),
            sync_bn=None,
            work_dir=str(work_dir)))
    config.merge_from_dict({key.replace('__', '.'): value for key, value in overrides.items()})
    return config


def _train(config: Config, rank: int, world_size: int, log: Path) -> None:
    # A forked process has none of its parent's threads, and its output goes to a file.
    torch.set_num_threads(1)
    sys.stdout = sys.stderr = log.open('a', buffering=1)
    os.dup2(sys.stdout.fileno(), 1)
    os.dup2(sys.stdout.fileno(), 2)
    if world_size > 1:
        meeting = Path(config.work_dir) / f'meeting_{config.pop("attempt")}'
        dist.init_process_group('gloo', f'file://{meeting}', rank=rank, world_size=world_size)
        os.environ['LOCAL_RANK'] = str(rank)
        config.launcher = 'pytorch'
        prepare_launch(config)
    Runner.from_cfg(config).train()


class TrainingRun:
    """A training in one process or in several that are connected by gloo.

    Args:
        config: of the training.
        resume: whether to continue from the latest checkpoint of the work dir, or the checkpoint.
        world_size: number of processes.
    """

    def __init__(self, config: Config, resume: Any = False, world_size: int = 1) -> None:
        config = config.copy()
        config.resume = bool(resume)
        config.load_from = None if resume in (True, False) else str(resume)
        self.work_dir = Path(config.work_dir)
        self.work_dir.mkdir(parents=True, exist_ok=True)
        self.logs = [self.work_dir / f'output_{rank}.txt' for rank in range(world_size)]
        config.attempt = time.monotonic_ns()
        context = multiprocessing.get_context('fork')
        self.processes: List[Any] = [
            context.Process(target=_train, args=(config, rank, world_size, log))
            for rank, log in enumerate(self.logs)
        ]
        for process in self.processes:
            process.start()

    def wait(self, timeout: float = 300) -> List[Optional[int]]:
        """Exit codes of the processes; they are killed, and have None, where the time is not enough."""
        end = time.monotonic() + timeout
        for process in self.processes:
            process.join(max(end - time.monotonic(), 0))
        codes = [process.exitcode for process in self.processes]
        self.kill()
        return codes

    def finish(self) -> None:
        """Wait for the end of a training that has to succeed."""
        codes = self.wait()
        assert not any(codes) and None not in codes, f'{codes}\n{self.output()}'

    def signal(self, number: signal.Signals) -> None:
        """Send a signal to all processes."""
        for process in self.processes:
            if process.is_alive():
                os.kill(process.pid, number)

    def kill(self) -> None:
        """End all processes at once, as ``kill -9`` does."""
        self.signal(signal.SIGKILL)
        for process in self.processes:
            process.join()

    def wait_for_iteration(self, iteration: int, timeout: float = 120) -> None:
        """Wait until an iteration is in the log."""
        end = time.monotonic() + timeout
        while time.monotonic() < end and any(process.is_alive() for process in self.processes):
            if iteration in logged_iterations(self.work_dir):
                return
            time.sleep(0.02)
        raise AssertionError(f'iteration {iteration} was not reached:\n{self.output()}')

    def output(self) -> str:
        """The end of what each process has printed."""
        return '\n'.join(log.read_text()[-3000:] for log in self.logs)


def logged_iterations(work_dir: Path) -> List[int]:
    """Iterations in the logs of all runs of a work dir."""
    lines = [line for log in sorted(work_dir.glob('*/vis_data/scalars.json'))
             for line in log.read_text().splitlines()]  # yapf: disable
    return [line['iter'] for line in map(json.loads, lines) if 'loss' in line]


def trained_state(checkpoint: Path) -> Dict[str, Any]:
    """Weights, optimizer and schedules of a checkpoint; tensors and numbers by their path in it."""
    content = torch.load(checkpoint, weights_only=True)
    found: Dict[str, Any] = dict(iteration=content['meta']['iter'])

    def collect(path: str, value: Any) -> None:
        if isinstance(value, dict):
            for key, item in value.items():
                collect(f'{path}.{key}', item)
        elif isinstance(value, (list, tuple)):
            for index, item in enumerate(value):
                collect(f'{path}.{index}', item)
        else:
            found[path] = value

    for part in ('state_dict', 'optimizer', 'param_schedulers'):
        collect(part, content[part])
    return found


def assert_same_training(found: Path, expected: Path) -> int:
    """Compare two checkpoints bit by bit; return the number of compared tensors."""
    found_state, expected_state = trained_state(found), trained_state(expected)
    assert found_state.keys() == expected_state.keys()
    tensors = [name for name, value in expected_state.items() if isinstance(value, torch.Tensor)]
    other = [name for name in tensors if not torch.equal(found_state[name], expected_state[name])]
    other += [
        name for name in expected_state.keys() - set(tensors) if found_state[name] != expected_state[name]
    ]
    assert not other, f'{len(other)} of {len(expected_state)} values differ: {sorted(other)[:5]}'
    return len(tensors)
