"""Runs of a seed see the same batches and start from the same weights, in all variants of a study."""
from pathlib import Path

import pytest
import torch
from mmengine.config import DictAction
from mmengine.runner import Runner

from remax_mm.analysis.studies import STUDIES
from remax_mm.analysis.study_plan import Plan, plan_runs
from remax_mm.apis.run_config import load_run_config
from remax_mm.datasets import write_mini_panoptic
from tests.conftest import REPOSITORY


@pytest.fixture(scope='module')
def data(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp('data') / 'mini'
    write_mini_panoptic(folder, num_train=12, num_val=1, num_test=1)
    return folder


def _start(run, data):
    """Initial weights and the first two batches of a training."""
    options = [
        *run.options, 'train_dataloader.num_workers=0', 'train_dataloader.persistent_workers=False',
        'train_dataloader.batch_size=3', 'log_level=ERROR',
        *(f'{split}_dataloader.dataset.data_root={data}/' for split in ('train', 'val', 'test'))
    ]
    overrides = dict(option.split('=', maxsplit=1) for option in options)
    overrides = {key: DictAction._parse_iterable(value) for key, value in overrides.items()}
    config = load_run_config(run.config, overrides, str(run.folder))
    runner = Runner.from_cfg(config)
    loop = runner.build_train_loop(runner._train_loop)
    runner._init_model_weights()
    loop.dataloader.start_at(0, runner.seed)
    batches = [next(loop.dataloader_iterator) for _ in range(2)]
    return runner.model.state_dict(), batches


def _pixels(batches):
    for batch in batches:
        yield from batch['inputs']
        for sample in batch['data_samples']:
            for field in ('gt_panoptic_seg', 'gt_sem_seg', 'gt_instances'):
                if field in sample:
                    yield from (torch.as_tensor(getattr(value, 'masks', value))
                                for value in sample.get(field).values() if isinstance(value, torch.Tensor))


@pytest.mark.parametrize(
    'study',
    ['kmax', *(pytest.param(name, marks=pytest.mark.slow) for name in ('mask2former', 'maskformer'))])
def test_runs_of_a_seed__start_alike(study, data, tmp_path):
    plain, relaxed = list(STUDIES[study].variants)[0], list(STUDIES[study].variants)[-1]
    plan = Plan(study, [plain, relaxed], [3], plain)
    (weights, batches), (other_weights, other_batches) = (
        _start(run, data) for run in plan_runs(plan, REPOSITORY / 'configs' / 'mini', tmp_path))

    # All parts of the plain model, but for the bias that the prior sets.
    assert set(weights) <= set(other_weights) and len(other_weights) > len(weights)
    differing = [name for name in weights if not torch.equal(weights[name], other_weights[name])]
    prior = [name for name in weights if name.endswith('mask_norm.bias')]
    assert differing == prior and bool(prior) == (study == 'kmax')

    # The relaxation has random numbers of its own.
    first = {name: value.flatten()[:8] for name, value in weights.items() if value.numel() >= 8}
    heads = [
        value.flatten()[:8] for name, value in other_weights.items()
        if 'semantic_head' in name and name not in weights and name.endswith('conv.weight')
    ]
    assert heads
    for head in heads:
        assert not any(torch.allclose(head / head[0], value / value[0]) for value in first.values())

    pixels, other_pixels = list(_pixels(batches)), list(_pixels(other_batches))
    assert len(pixels) == len(other_pixels) >= 12  # image and ground truth of two batches of three
    assert all(map(torch.equal, pixels, other_pixels))
    assert not torch.equal(pixels[0], pixels[-1])


@pytest.mark.slow
def test_runs_of_two_seeds__differ(data, tmp_path):
    plan = Plan('kmax', ['softmax'], [0, 1], 'softmax')
    (weights, batches), (other_weights, other_batches) = (
        _start(run, data) for run in plan_runs(plan, REPOSITORY / 'configs' / 'mini', tmp_path))
    name = 'panoptic_head.transformer_decoder.cluster_centers'
    assert not torch.equal(weights[name], other_weights[name])
    pairs = zip(_pixels(batches), _pixels(other_batches))
    assert not all(torch.equal(a, b) for a, b in pairs)
