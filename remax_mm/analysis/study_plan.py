"""The runs that a study consists of: the config and the overrides of each training.

With the same seed all runs see the same images in the same order with the same augmentations, and all weights
that two models share start from the same values.
"""
from pathlib import Path
from typing import List, NamedTuple, Optional, Sequence

from .studies import STUDIES

EVALUATIONS = 6
"""Validations of a run, for the curves."""
RELAXATION_LOG = 'default_hooks.relaxation_log.type=remax_mm.analysis.relaxation_log.RelaxationLogHook'

# The final weights are tested once on images that no choice depends on.
_TEST_SPLIT = [
    'default_hooks.final_test.type=FinalTestHook',
    'test_dataloader.dataset.ann_file=annotations/panoptic_test.json',
    'test_dataloader.dataset.data_prefix.img=images/test/',
    'test_dataloader.dataset.data_prefix.seg=annotations/panoptic_test/',
]


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
        *([RELAXATION_LOG] if plan.log_relaxation else []),
    ]  # yapf: disable
    folder = work_dir / condition / name / f'seed{seed}'
    return Run(condition, name, seed, configs / variant.config, options, folder)
