"""Each ablation differs from ReMaX-B in what its table of the paper says, and in nothing else."""
from typing import Any, Dict, Iterator, Tuple

from mmengine.config import Config

from tests.conftest import REPOSITORY

FOLDER = REPOSITORY / 'configs' / 'ablations'
ENDING = '_r50_8xb8-50k_coco-1281.py'
BASE = REPOSITORY / 'configs' / 'remax' / f'remax-b{ENDING}'
ABSENT = '(absent)'

HEAD = 'model.panoptic_head.'
CRITERION = f'{HEAD}criterion.'
REMASK = f'{HEAD}remask.'
NO_REMASK = {f'{HEAD}remask': None, f'{CRITERION}loss_stage_sem': None}
KMAX_RATE = {'optim_wrapper.optimizer.lr': 5e-4, 'optim_wrapper.optimizer.weight_decay': 0.05}
NO_REMAX = {**NO_REMASK, f'{CRITERION}reclass': None, **KMAX_RATE}
SOFTMAX_MASK_ID = {f'{CRITERION}loss_mask_id.type': 'SoftmaxMaskIDLoss'}
GROUND_TRUTH = {
    f'{REMASK}type': 'GroundTruthReMask',
    f'{REMASK}semantic_head': ABSENT,
    f'{CRITERION}loss_stage_sem': None
}

DIFFERENCES: Dict[str, Dict[str, Any]] = {
    'table2_softmax': {
        **NO_REMAX,
        **SOFTMAX_MASK_ID
    },
    'table2_softmax-remax': {
        **SOFTMAX_MASK_ID, f'{REMASK}activation': 'softmax',
        f'{CRITERION}reclass.activation': 'softmax'
    },
    'table2_sigmoid': NO_REMAX,
    'table2_sigmoid-clip': {
        **NO_REMAX, 'optim_wrapper.clip_grad': dict(max_norm=0.01, norm_type=2)
    },
    'table3_2-remasks': {
        f'{HEAD}num_relaxed': 2
    },
    'table3_6-remasks': {
        f'{HEAD}num_relaxed': 6
    },
    'table3_reclass-only': {
        **NO_REMASK,
        **KMAX_RATE
    },
    'table4_eta-0': {
        f'{CRITERION}reclass.smoothing': 0
    },
    'table4_eta-0.01': {
        f'{CRITERION}reclass.smoothing': 0.01
    },
    'table4_eta-0.05': {
        f'{CRITERION}reclass.smoothing': 0.05
    },
    'table4_eta-0.2': {
        f'{CRITERION}reclass.smoothing': 0.2
    },
    'table5_remask-at-test': {
        f'{REMASK}type': 'ReMaskAtTest'
    },
    'table5_no-identity': {
        f'{REMASK}identity': False
    },
    'table5_no-identity-remask-at-test': {
        f'{REMASK}identity': False,
        f'{REMASK}type': 'ReMaskAtTest'
    },
    'table7_no-stop-gradient': {
        f'{REMASK}stop_gradient': False
    },
    'table7_ground-truth': GROUND_TRUTH,
    'table7_ground-truth-filter': {
        **GROUND_TRUTH, f'{REMASK}identity': False
    },
    'interpretation_class-gradient': {
        f'{REMASK}detach_class': False
    },
    'interpretation_stage-feature': {
        f'{REMASK}source': 'pixel_decoder'
    },
    'interpretation_embedding': {
        f'{REMASK}source': 'embedding'
    },
    'interpretation_own-assignment': {
        f'{HEAD}transformer_decoder.relax_assignment': False
    },
    'interpretation_mask-id-mean': {
        f'{CRITERION}loss_mask_id.slot_reduction': 'mean'
    },
    'interpretation_mask-id-matched': {
        f'{CRITERION}loss_mask_id.slot_reduction': 'matched'
    },
    'interpretation_mask-prior': {
        f'{HEAD}transformer_decoder.mask_prior': 1 / 128
    },
    'interpretation_softmax-gate': {
        f'{REMASK}activation': 'softmax'
    },
    'interpretation_binary-semantics': {
        f'{CRITERION}loss_stage_sem.type': 'BinarySemanticLoss'
    },
    'interpretation_stride-4-semantics': {
        f'{CRITERION}loss_stage_sem.type': 'UpsampledSemanticLoss',
        f'{CRITERION}loss_stage_sem.num_samples': 4096,
        f'{CRITERION}loss_stage_sem.sampling_temperature': 2.0
    },
}


def _differences(ours: Any, base: Any, name: str = '') -> Iterator[Tuple[str, Any]]:
    """Dotted keys with different values in two configs, and the value of ours."""
    if not (isinstance(ours, dict) and isinstance(base, dict)):
        if ours != base:
            yield name, ours
        return
    for key in {**base, **ours}:
        yield from _differences(
            ours.get(key, ABSENT), base.get(key, ABSENT), f'{name}.{key}' if name else key)


def test_ablation_configs__all_are_known():
    assert {path.name for path in FOLDER.glob('*.py')} == {name + ENDING for name in DIFFERENCES}


def test_ablation_configs__all_are_in_the_index():
    index = (FOLDER / 'README.md').read_text(encoding='utf-8')
    assert not [name for name in DIFFERENCES if f'`{name}`' not in index]


def test_ablation_configs__change_what_their_table_says():
    base = Config.fromfile(BASE).to_dict()
    configs = {name: Config.fromfile(FOLDER / (name + ENDING)).to_dict() for name in DIFFERENCES}
    assert {name: dict(_differences(config, base)) for name, config in configs.items()} == DIFFERENCES
