"""The table of studies: its configs are complete, and its variants are what their names say."""
from pathlib import Path

import pytest
from mmengine.config import DictAction
from mmengine.registry import DefaultScope

from remax_mm.analysis.studies import STUDIES, describe_studies
from remax_mm.analysis.study_plan import Plan, plan_runs
from remax_mm.analysis.training_step import load_training
from remax_mm.apis.run_config import load_run_config
from remax_mm.datasets import write_mini_panoptic
from tests.conftest import REPOSITORY

CONFIGS = REPOSITORY / 'configs' / 'mini'
ABLATIONS = REPOSITORY / 'configs' / 'ablations'

# What the studies name differently from configs/ablations.
ABLATION_OF = {
    ('interpretations', 'softmax-gate'): 'interpretation_softmax-gate',
    ('interpretations', 'class-gradient'): 'interpretation_class-gradient',
    ('interpretations', 'pixel-decoder'): 'interpretation_stage-feature',
    ('interpretations', 'embedding'): 'interpretation_embedding',
    ('interpretations', 'own-assignment'): 'interpretation_own-assignment',
    ('interpretations', 'mask-id-mean'): 'interpretation_mask-id-mean',
    ('interpretations', 'mask-id-matched'): 'interpretation_mask-id-matched',
    ('interpretations', 'binary-semantics'): 'interpretation_binary-semantics',
    ('interpretations', 'stride-4-semantics'): 'interpretation_stride-4-semantics',
    ('table2', 'softmax'): 'table2_softmax',
    ('table2', 'softmax-remax'): 'table2_softmax-remax',
    ('table2', 'sigmoid-prior'): 'table2_sigmoid',
    ('table2', 'sigmoid-clip'): 'table2_sigmoid-clip',
    ('table3', '0'): 'table2_sigmoid',
    ('table3', '2'): 'table3_2-remasks',
    ('table3', '6'): 'table3_6-remasks',
    ('table4', 'eta0'): 'table4_eta-0',
    ('table4', 'eta0.01'): 'table4_eta-0.01',
    ('table4', 'eta0.05'): 'table4_eta-0.05',
    ('table4', 'eta0.2'): 'table4_eta-0.2',
    ('table5', 'at-test'): 'table5_remask-at-test',
    ('table5', 'no-identity-at-test'): 'table5_no-identity-remask-at-test',
    ('table5', 'no-identity'): 'table5_no-identity',
    ('table7', 'ground-truth'): 'table7_ground-truth',
    ('table7', 'ground-truth-filter'): 'table7_ground-truth-filter',
    ('table7', 'no-stop-gradient'): 'table7_no-stop-gradient',
}


def _config(run, **overrides):
    options = {
        key: DictAction._parse_iterable(value)
        for key, value in (option.split('=', maxsplit=1) for option in run.options)
    }
    return load_run_config(run.config, dict(options, **overrides))


def _runs(name):
    study = STUDIES[name]
    return plan_runs(
        Plan(name, list(study.variants), [0], study.baseline, list(study.conditions)), CONFIGS, REPOSITORY)


def _semantics(head: dict) -> dict:
    """What the variants of the tables change, with the defaults of the classes."""
    remask, criterion = head.get('remask') or {}, head['criterion']
    return dict(
        remask={
            key: value
            for key, value in remask.items() if key != 'semantic_head'
        },
        loss_mask_id={
            key: value
            for key, value in criterion['loss_mask_id'].items() if key != 'loss_weight'
        },
        reclass=criterion.get('reclass'),
        stage_loss=(criterion.get('loss_stage_sem') or {}).get('type'),
        relax_assignment=head['transformer_decoder'].get('relax_assignment', True))


@pytest.mark.parametrize('study, variant', ABLATION_OF)
def test_studies__agree_with_the_ablations(study, variant):
    """Relaxations, losses and clipping are those of the config for COCO, and so is the paper's number."""
    run = next(run for run in _runs(study) if run.variant == variant)
    config = _config(run)
    ablation = load_run_config(next(ABLATIONS.glob(f'{ABLATION_OF[study, variant]}_r50*')))
    head, expected = config.model.panoptic_head, ablation.model.panoptic_head
    assert _semantics(head) == _semantics(expected)
    if study == 'table3':
        assert sum(head.transformer_decoder.num_layers) == sum(expected.transformer_decoder.num_layers) == 6
        assert head.get('num_relaxed') == expected.get('num_relaxed')
    clipping = (settings.optim_wrapper.get('clip_grad') or {} for settings in (config, ablation))
    assert len({settings.get('max_norm') for settings in clipping}) == 1
    paper = STUDIES[study].variants[variant].paper
    assert paper is None or f'PQ {paper} (' in Path(ablation.filename).read_text()


def test_studies__baselines_and_names():
    for name, study in STUDIES.items():
        assert study.baseline in study.variants
        titles = [variant.title for variant in study.variants.values()]
        assert len(set(titles)) == len(titles)
        assert f'{name}: {study.question}' in describe_studies()
        for condition in study.conditions:
            # Their folders must differ.
            assert condition not in study.variants and '/' not in condition


@pytest.mark.parametrize('factor', ['half', 'double'])
def test_widths__scale_both_decoders(factor):
    run = next(run for run in _runs('widths') if run.condition == factor)
    full = next(run for run in _runs('widths') if run.condition == 'full')
    scale = dict(half=0.5, double=2)[factor]
    head, expected = (_config(each).model.panoptic_head for each in (run, full))
    assert head.pixel_decoder.channels == [scale * width for width in expected.pixel_decoder.channels]
    for name in ('channels', 'ffn_channels', 'embedding_channels'):
        assert head.transformer_decoder[name] == scale * expected.transformer_decoder[name]


@pytest.mark.slow
def test_studies__models_are_trained(tmp_path):
    """A training step and inference of each different model."""
    write_mini_panoptic(tmp_path, 4, 1)
    loading = {
        'train_dataloader.dataset.data_root': f'{tmp_path}/',
        'train_dataloader.batch_size': 2,
        'train_dataloader.num_workers': 0,
        'train_dataloader.persistent_workers': False
    }
    configs = {str(config.model): config for name in STUDIES for config in _configs(name, loading)}
    assert len(configs) > 40
    for config in configs.values():
        with DefaultScope.overwrite_default_scope('mmdet'):
            model, loader = load_training(config, None, 0)
            data = model.data_preprocessor(next(iter(loader)), training=True)
            losses = model.train()(**data, mode='loss')
            sum(value.sum() for key, value in losses.items() if 'loss' in key).backward()
            assert any(parameter.grad is not None for parameter in model.parameters())
            model.eval()(**data, mode='predict')


def _configs(name, overrides):
    return [_config(run, **overrides) for run in _runs(name)]
