"""Every model config builds and trains, and the ReMaX ones are their kMaX parents plus the relaxations."""
import copy
import re
from functools import lru_cache
from pathlib import Path
from typing import Dict

import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from remax_mm.analysis.complexity import count_parameters, measure_complexity
from remax_mm.engine.optimizers import group_parameters
from remax_mm.models.inference_copy import inference_copy
from tests.conftest import REPOSITORY

CONFIGS = sorted(p for p in (REPOSITORY / 'configs').rglob('*.py') if '_base_' not in p.parts)
# mmdet's own mask transformers are tested in test_mask_former_configs.py.
OWN = [path for path in CONFIGS if not re.search('mask2?former', path.stem)]

# Table 12 of arXiv 2306.17319 to the last digit, as counted on deeplab2's layer sizes.
PARAMETERS: Dict[str, int] = {
    'remax-t_mnv3-s_8xb8-150k_coco-641': 18_628_000,
    'remax-s_mnv3-l_8xb8-150k_coco-641': 21_997_440,
    'remax-m_r50_8xb8-150k_coco-641': 50_788_816,
    'remax-b_r50_8xb8-50k_coco-1281': 56_580_120,
    'remax-b_r50_8xb8-200k_coco-1281': 56_580_120,
    # Table 11, counted likewise.
    'kmax_r50_8xb8-50k_coco-1281': 56_580_120,
    'kmax_convnext-t_8xb8-150k_coco-1281': 60_937_080,
    'kmax_convnext-s_8xb8-150k_coco-1281': 82_571_640,
    'kmax_max-s_8xb8-150k_coco-1281': 74_415_512,
    'remax_convnext-t_8xb8-150k_coco-1281': 60_937_080,
    'remax_convnext-s_8xb8-150k_coco-1281': 82_571_640,
    'remax_max-s_8xb8-150k_coco-1281': 74_415_512,
    # Tables 8 to 10, counted likewise; `os4` and `convnext-l` on the weights of the PyTorch release.
    'kmax_r50_8xb4-60k_cityscapes-1025x2049': 56_401_146,
    'kmax_r50-os4_8xb4-60k_cityscapes-1025x2049': 56_390_778,
    'kmax_convnext-l_8xb4-60k_cityscapes-1025x2049': 231_662_330,
    'kmax_max-s_8xb4-60k_cityscapes-1025x2049': 74_238_714,
    'kmax_mnv3-l_8xb4-60k_cityscapes-1025x2049': 36_563_402,
    'remax_r50_8xb4-60k_cityscapes-1025x2049': 56_401_146,
    'remax_max-s_8xb4-60k_cityscapes-1025x2049': 74_238_714,
    'remax_mnv3-l_8xb4-60k_cityscapes-1025x2049': 36_563_402,
    'kmax_r50_8xb8-100k_ade20k-641': 56_610_703,
    'remax_r50_8xb8-100k_ade20k-1281': 56_610_703,
    # deeplab2's encoders, and the mask predictor: 173,576 as of kMaX-DeepLab for S, and for L, whose memory
    # is twice as wide, 256 x 128 weights of mask kernels and 256 x 134 of class logits more.
    'max-deeplab-s_8xb8-100k_coco-641': 61_726_624 + 173_576,
    'max-deeplab-l_8xb8-100k_coco-1025': 450_523_232 + 173_576 + 256 * (128 + 134),
    'remax-max-deeplab-s_8xb8-100k_coco-641': 61_726_624 + 173_576,
}
# Billions of multiply-accumulates at 1200x800, counted on the public kMaX-DeepLab code.
GMACS: Dict[str, float] = {
    'kmax_r50_8xb8-150k_coco-1281': 166.8,
    'kmax_convnext-t_8xb8-150k_coco-1281': 172.3,
    'kmax_convnext-s_8xb8-150k_coco-1281': 253.2,
    'kmax_max-s_8xb8-150k_coco-1281': 238.5,
}
SCHEDULED = [path for path in OWN if '_8xb' in path.stem]
MAX_DEEPLAB = [path for path in SCHEDULED if path.parent.name == 'max_deeplab']
# One config of each ReMaX model: a schedule changes nothing at inference, nor does the crop of ADE20K.
RELAXED = {
    re.sub(r'_8xb[^_]*|-1281|-641', '', path.stem): path
    for path in OWN if path.stem.startswith('remax')
}
SIDE = 65


def _build(path: Path) -> torch.nn.Module:
    """The model of a config on the meta device: shapes without numbers, and no pretrained weights."""
    config = Config.fromfile(path)
    config.model.backbone.pop('init_cfg', None)
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(config.model)


@torch.no_grad()
def _fill(model: torch.nn.Module) -> torch.nn.Module:
    """Give a model of the meta device some weights, in less time than its own initialization takes."""
    model = model.to_empty(device='cpu')
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if name.endswith('running_var'):
            value.fill_(1)
        elif value.is_floating_point():
            value.normal_(std=0.05)
        else:
            value.zero_()
    return model


def _shrink(config: Config) -> Config:
    """The same model for images of 65x65 pixels, with fewer mask slots and samples, from scratch."""
    config.model.backbone.pop('init_cfg', None)
    config.model.data_preprocessor.pad_size = (SIDE, SIDE)
    head = config.model.panoptic_head
    if 'transformer_decoder' in head:
        head.transformer_decoder.num_slots = 12
    else:
        config.model.backbone.num_slots = 12
    if config.model.backbone.get('conv_block') == 'basic':  # MaX-DeepLab-L, a quarter as wide
        config.model.backbone.update(channels=[8, 16, 32, 64, 128], dual_path_channels=128)
        head.in_channels = head.semantic_head.in_channels[0] = 64
    for loss in ('loss_insdis', 'loss_sem'):
        if head.criterion[loss].get('num_samples'):
            head.criterion[loss].num_samples = 64
    return config


def _slots(model: torch.nn.Module) -> torch.nn.Parameter:
    """What the mask slots start as: cluster centers, or the memory of MaX-DeepLab."""
    if hasattr(model.backbone, 'memory'):
        return model.backbone.memory
    return model.panoptic_head.transformer_decoder.cluster_centers


def _batch() -> dict:
    """Two images as a data loader yields them: two things, one stuff, some void."""
    inputs, samples = [], []
    for _ in range(2):
        segment_map = torch.zeros(1, SIDE, SIDE, dtype=torch.uint8)
        segment_map[:, 10:40, :30], segment_map[:, 20:50, 35:], segment_map[:, 50:] = 1, 2, 3
        sample = DetDataSample(
            metainfo=dict(img_path='drawn', img_shape=(SIDE, SIDE), ori_shape=(SIDE, SIDE)))
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(
            labels=torch.tensor([0, 2, 11]), is_thing=torch.tensor([True, True, False]))
        inputs.append(torch.randint(0, 256, (3, SIDE, SIDE), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@lru_cache(maxsize=None)
def _read(path: Path) -> Config:
    """For tests that change nothing in it."""
    return Config.fromfile(path)


def _config(name: str) -> Path:
    return next(path for path in CONFIGS if path.stem == name)


@pytest.mark.parametrize('path', CONFIGS, ids=lambda path: path.stem)
def test_config__has_a_recipe_card_and_little_else(path):
    card = path.read_text().split('"""')[1]
    assert 'Train:' in card and 'Hardware:' in card
    assert path.name in card
    if path in SCHEDULED:
        assert 'Paper:' in card and 'Expected:' in card
        assert not re.search(r'Expected: +PQ', card) or 'not measured by us' in card
    body = path.read_text().split('"""', 2)[2]
    if _read(path)._cfg_dict and "_base_ = '" in body:  # a child
        assert sum(bool(line.strip()) for line in body.splitlines()) <= 30


@pytest.mark.parametrize('name', PARAMETERS)
def test_config__parameters_at_inference(name):
    assert count_parameters(inference_copy(_build(_config(name)))) == PARAMETERS[name]


@pytest.mark.slow
@pytest.mark.parametrize('name', GMACS)
def test_config__multiply_accumulates(name):
    complexity = measure_complexity(_build(_config(name)).to_empty(device='cpu'), (800, 1200))
    assert complexity.macs / 1e9 == pytest.approx(GMACS[name], rel=2e-3)


@pytest.mark.parametrize('path', SCHEDULED, ids=lambda path: path.stem)
def test_config__does_what_its_name_says(path):
    config = _read(path)
    batch, iterations, height, _, width = re.search(r'_8xb(\d+)-(\d+)k_\w+-(\d+)(x(\d+))?$',
                                                    path.stem).groups()
    iterations, crop = int(iterations) * 1000, (int(height), int(width or height))
    assert config.train_dataloader.batch_size == int(batch)
    assert config.auto_scale_lr.base_batch_size == 8 * int(batch)
    assert tuple(config.model.data_preprocessor.pad_size) == tuple(config.image_size) == crop

    assert config.train_cfg.max_iters == iterations
    warmup, decay = config.param_scheduler
    assert (warmup.type, warmup.begin, warmup.end) == ('LinearLR', 0, 5000)
    if decay.type == 'PolyLR':
        assert (decay.begin, decay.end) == (0, iterations)
    else:
        assert decay.milestones == [0.85 * iterations, 0.95 * iterations] and decay.gamma == 0.1


@pytest.mark.parametrize('name', [path.stem for path in SCHEDULED if path.parent.name in ('kmax', 'remax')])
def test_config__learning_rate_and_decay_of_the_paper(name):
    config = _read(_config(name))
    optimizer = config.optim_wrapper.optimizer
    cityscapes = 'cityscapes' in name
    if name.startswith('kmax'):
        assert (optimizer.lr, optimizer.weight_decay) == (3e-4 if cityscapes else 5e-4, 0.05)
    else:
        short = config.train_cfg.max_iters <= 100_000
        assert (optimizer.lr, optimizer.weight_decay) == (3e-3 if cityscapes else 6e-3,
                                                          0.005 if short else 0.02)
    assert config.optim_wrapper.paramwise_cfg == dict(lr_mult=dict(backbone=0.1))


@pytest.mark.parametrize('path', MAX_DEEPLAB, ids=lambda path: path.stem)
def test_config__max_deeplab_as_in_deeplab2(path):
    config = _read(path)
    large, fine = '-l_' in path.stem, path.stem.endswith('1025')
    optimizer = config.optim_wrapper.optimizer
    assert (optimizer.type, optimizer.lr, optimizer.weight_decay) == ('Adam', 3e-4 if large else 1e-3, 0)
    pretrained = ('stem', 'stages', 'inner_decoder') if large else ('stem', 'stages')
    lr_mult = config.optim_wrapper.paramwise_cfg.lr_mult
    assert lr_mult == {f'backbone.{part}': 0.1 for part in pretrained}

    # Scales of 0.5 to 1.5; colors change for L alone.
    for pipeline in (config.train_pipeline, config.train_dataloader.dataset.pipeline):
        steps = {step.type: step for step in pipeline}
        sides = [(1024 if fine else 640) * tenths // 10 + 1 for tenths in range(5, 16)]
        assert steps['RandomChoiceResize'].scales == [(side, side) for side in sides]
        assert steps['RandomPad'].size == steps['RandomCrop'].crop_size == config.image_size
        assert ('ColorPolicy' in steps) == large and 'RandomFlip' in steps
    assert config.test_dataloader.dataset.pipeline[1].scale == config.image_size

    test = config.model.test_cfg
    assert (test.class_threshold, test.pixel_threshold) == (0.7, 0.4)
    assert (test.thing_area, test.stuff_area) == ((256, 4096) if fine else (100, 1600))
    criterion = config.model.panoptic_head.criterion
    assert criterion.loss_insdis.num_things_classes == 80 and criterion.loss_sem == dict(type='SemanticLoss')
    assert config.model.backbone.drop_path_rate == 0.2


@pytest.mark.parametrize('name, pretrained', [('max-deeplab-s_8xb8-100k_coco-641', 41_343_424),
                                              ('max-deeplab-l_8xb8-100k_coco-1025', 175_115_392)])
def test_config__only_what_imagenet_pretrains_learns_slowly(name, pretrained):
    # deeplab2's counts of the backbones that it trains on ImageNet.
    lr_mult = _read(_config(name)).optim_wrapper.paramwise_cfg.lr_mult
    groups = group_parameters(_build(_config(name)), 1., 0., lr_mult)
    assert sum(p.numel() for group in groups if group['lr'] == 0.1 for p in group['params']) == pretrained


@pytest.mark.parametrize(
    'path', [path for path in SCHEDULED if path not in MAX_DEEPLAB], ids=lambda path: path.stem)
def test_config__losses_and_thresholds_of_its_data_set(path):
    """deeplab2's configs; its area limits are left out, as in the PyTorch release."""
    config = _read(path)
    name = re.search(r'coco|cityscapes|ade20k', path.stem)[0]
    criterion = config.model.panoptic_head.criterion
    weights = [
        criterion[f'loss_{term}'].get('loss_weight', 1) for term in ('cls', 'dice', 'mask_id', 'insdis')
    ]
    assert weights == [3, 3, 0.3, 1] and criterion.loss_sem.get('loss_weight', 1) == 1

    samples = 1024 if path.stem.endswith('ade20k-641') else 4096
    temperature = 0.6 if name == 'cityscapes' else 1.5
    assert criterion.loss_insdis.num_samples == samples
    assert criterion.loss_insdis.sampling_temperature == temperature
    assert criterion.loss_sem.get('num_samples', 0) == (0 if name == 'cityscapes' else samples)

    test = config.model.test_cfg
    thresholds = dict(coco=(0.7, 0.5, 0.8), cityscapes=(0.5, 0.3, 0.9), ade20k=(0.4, 0.4, 0.8))[name]
    assert (test.thing_threshold, test.stuff_threshold, test.overlap_threshold) == thresholds
    assert test.pixel_threshold == 0.4 and (test.thing_area, test.stuff_area) == (0, 0)
    assert (test.class_order_weight, test.mask_order_weight) == (1, 0 if name == 'cityscapes' else 1)

    decoder = config.model.panoptic_head.transformer_decoder
    assert decoder.num_slots == (256 if name == 'cityscapes' else 128)
    assert decoder.drop_path_rate == (0 if name == 'ade20k' else 0.2)


@pytest.mark.slow
@pytest.mark.parametrize('path', OWN, ids=lambda path: path.stem)
def test_config__trains_for_a_step(path):
    config = _shrink(Config.fromfile(path))
    init_default_scope('mmdet')
    model = MODELS.build(config.model).train()
    slots = _slots(model)
    before = slots.detach().clone()
    trained, reached = [p for p in model.parameters() if p.requires_grad], set()
    for index, parameter in enumerate(trained):
        parameter.register_hook(lambda gradient, index=index: reached.add(index))
    losses = model.train_step(_batch(), build_optim_wrapper(model, config.optim_wrapper))

    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not torch.equal(slots, before)
    # DistributedDataParallel waits for a gradient of each.
    assert len(reached) == len(trained)


@pytest.mark.parametrize('path', RELAXED.values(), ids=RELAXED)
def test_remax_config__is_its_kmax_parent_at_inference(path):
    """Same parameters by name and shape, and with the same weights bit for bit the same predictions."""
    config = Config.fromfile(path)
    plain = copy.deepcopy(config)
    head = plain.model.panoptic_head
    head.pop('remask')
    head.criterion.pop('reclass')
    head.criterion.pop('loss_stage_sem')
    for model in (config.model, plain.model):
        model.backbone.pop('init_cfg', None)

    init_default_scope('mmdet')
    with torch.device('meta'):
        remax, kmax = MODELS.build(config.model), MODELS.build(plain.model)
    remax, kmax = _fill(remax).eval(), inference_copy(_fill(kmax))
    stripped = inference_copy(remax)
    assert {k: v.shape for k, v in stripped.state_dict().items()} == \
        {k: v.shape for k, v in kmax.state_dict().items()}

    kmax.load_state_dict(stripped.state_dict())
    image = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        ours, theirs = remax(image, mode='tensor'), kmax(image, mode='tensor')
    for a, b in zip(ours, theirs):
        assert a.relaxed_mask_logits is None and a.sem_logits is None
        assert torch.equal(a.class_logits, b.class_logits)
        assert torch.equal(a.mask_logits, b.mask_logits)
        assert torch.isfinite(a.mask_logits).all() and a.mask_logits.std() > 0
