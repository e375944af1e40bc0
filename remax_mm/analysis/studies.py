"""Studies: named comparisons of trainings on the mini dataset, each of several variants of one model."""
from typing import Dict, NamedTuple, Optional, Tuple


class Variant(NamedTuple):
    """One of the compared models.

    Attributes:
        title: Name in tables and plots.
        config: Config below ``configs/mini``.
        options: Overrides of the config, as for ``--cfg-options`` of tools/train.py. ``{prior}`` stands for
            one over the number of slots.
    """
    title: str
    config: str
    options: Tuple[str, ...] = ()


class Condition(NamedTuple):
    """Settings under which all variants of a study are compared, instead of those of the study.

    Attributes:
        title: Name in tables and plots.
        options: Overrides of all configs.
        iterations, lr: Of all runs; None for those of the study.
    """
    title: str = ''
    options: Tuple[str, ...] = ()
    iterations: Optional[int] = None
    lr: Optional[float] = None


class Study(NamedTuple):
    """A comparison.

    Attributes:
        question: What the study answers.
        variants: By name.
        baseline: Variant that the others are compared with.
        iterations, lr: Of all runs.
        num_slots: Slots of all models; None keeps those of the configs.
        slots_key: Where configs have the number of slots.
        conditions: By name. A study with a single condition gives it no name.
    """
    question: str
    variants: Dict[str, Variant]
    baseline: str
    iterations: int = 600
    lr: float = 4e-3
    num_slots: Optional[int] = 128
    slots_key: str = 'model.panoptic_head.transformer_decoder.num_slots'
    conditions: Dict[str, Condition] = {'': Condition()}


DECODER = 'model.panoptic_head.transformer_decoder'
PRIOR = f'{DECODER}.mask_prior={{prior}}'

RELAXATIONS = {
    'softmax': Variant('softmax', 'kmax_mnv3-s_1xb8-1k_mini-129.py'),
    'sigmoid': Variant('sigmoid', 'kmax-sigmoid_mnv3-s_1xb8-1k_mini-129.py',
                       (f'{DECODER}.mask_prior=None', )),
    'sigmoid-prior': Variant('sigmoid + prior', 'kmax-sigmoid_mnv3-s_1xb8-1k_mini-129.py', (PRIOR, )),
    'remask': Variant('+ ReMask', 'kmax-sigmoid-remask_mnv3-s_1xb8-1k_mini-129.py', (PRIOR, )),
    'remask-reclass': Variant('+ ReMask + ReClass', 'remax_mnv3-s_1xb8-1k_mini-129.py', (PRIOR, )),
}
"""Variants of kMaX-DeepLab, each with one change more than the one before."""


def _mmdet_study(name: str, title: str) -> Study:
    plain, relaxed = (f'{model}_r18_1xb8-600_mini-129.py' for model in (name, f'remax-{name}'))
    variants = {
        name: Variant(title, plain),
        f'{name}-remask': Variant('+ ReMask', relaxed, ('model.panoptic_head.reclass=None', )),
        f'{name}-remask-reclass': Variant('+ ReMask + ReClass', relaxed),
    }  # yapf: disable
    return Study(
        f'Do the relaxations help mmdet\'s {title}?',
        variants,
        baseline=name,
        lr=1e-3,
        num_slots=None,
        slots_key='model.panoptic_head.num_queries')


STUDIES = {
    'kmax': Study('Do the relaxations help kMaX-DeepLab?', RELAXATIONS, baseline='sigmoid-prior'),
    'mask2former': _mmdet_study('mask2former', 'Mask2Former'),
    'maskformer': _mmdet_study('maskformer', 'MaskFormer'),
}
