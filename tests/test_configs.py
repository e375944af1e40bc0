"""All configs can be built and trained, and have the parameters that are published for their models."""
import copy
import re
from typing import Dict, Iterator

import pytest
import torch
from mmdet.registry import DATASETS, MODELS, TRANSFORMS
from mmdet.structures import DetDataSample
from mmengine.config import Config, ConfigDict
from mmengine.optim import build_optim_wrapper
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import nn

from remax_mm.analysis.complexity import count_parameters, measure_complexity
from remax_mm.engine.hooks.check_classes_hook import check_class_counts
from remax_mm.engine.optimizers import group_parameters
from remax_mm.models.inference_copy import inference_copy
from tests.config_files import OWN, PATHS, PUBLISHED, SCHEDULED, read_config

# Table 12 of arXiv 2306.17319 to the last digit, as counted on deeplab2's layer sizes.
PARAMETERS: Dict[str, int] = {
    'remax-t_mnv3-s_8xb8-150k_coco-641': 18_628_000,
    'remax-s_mnv3-l_8xb8-150k_coco-641': 21_997_440,
    'remax-m_r50_8xb8-150k_coco-641': 50_788_816,
    'remax-b_r50_8xb8-50k_coco-1281': 56_580_120,
    # Table 11, counted likewise.
    'kmax_r50_8xb8-50k_coco-1281': 56_580_120,
    'kmax_convnext-t_8xb8-150k_coco-1281': 60_937_080,
    'kmax_convnext-s_8xb8-150k_coco-1281': 82_571_640,
    'kmax_max-s_8xb8-150k_coco-1281': 74_415_512,
    # Tables 8 to 10, counted likewise; `os4` and `convnext-l` on the weights of the PyTorch release.
    'kmax_r50_8xb4-60k_cityscapes-1025x2049': 56_401_146,
    'kmax_r50-os4_8xb4-60k_cityscapes-1025x2049': 56_390_778,
    'kmax_convnext-l_8xb4-60k_cityscapes-1025x2049': 231_662_330,
    'kmax_max-s_8xb4-60k_cityscapes-1025x2049': 74_238_714,
    'kmax_mnv3-l_8xb4-60k_cityscapes-1025x2049': 36_563_402,
    'kmax_r50_8xb8-100k_ade20k-641': 56_610_703,
    # deeplab2's encoders, and the mask predictor: 173,576 as of kMaX-DeepLab for S, and for L, whose memory
    # is twice as wide, 256 x 128 weights of mask kernels and 256 x 134 of class logits more.
    'max-deeplab-s_8xb8-100k_coco-641': 61_726_624 + 173_576,
    'max-deeplab-l_8xb8-100k_coco-1025': 450_523_232 + 173_576 + 256 * (128 + 134),
}
STATED = re.compile(r'([\d.]+) M parameters at inference')
# Billions of multiply-accumulates at 1200x800, counted on the public kMaX-DeepLab code.
GMACS: Dict[str, float] = {
    'kmax_r50_8xb8-150k_coco-1281': 166.8,
    'kmax_convnext-t_8xb8-150k_coco-1281': 172.3,
    'kmax_convnext-s_8xb8-150k_coco-1281': 253.2,
    'kmax_max-s_8xb8-150k_coco-1281': 238.5,
}

# One config of each ReMaX model: the schedule does not change the network, nor does the crop of ADE20K.
RELAXED = {re.sub(r'_8xb[^_]*|-1281|-641', '', name): name for name in OWN if name.startswith('remax')}
QUICK = ('remax-t_mnv3-s_coco', 'remax-m_r50_coco', 'remax_convnext-t_coco', 'remax-max-deeplab-s_coco')
SIDE = 65


@pytest.fixture(autouse=True)
def _mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _build(model: ConfigDict) -> nn.Module:
    """A model on the meta device: shapes without numbers, and no pretrained weights."""
    model = copy.deepcopy(model)
    model.backbone.pop('init_cfg', None)
    with torch.device('meta'):
        return MODELS.build(model)


@pytest.fixture(scope='module')
def networks() -> Dict[str, nn.Module]:
    """The model of every config on the meta device; configs with the same model share it."""
    built: Dict[str, nn.Module] = {}
    for name in PATHS:
        model = read_config(name).model
        if str(model) not in built:
            try:
                with DefaultScope.overwrite_default_scope('mmdet'):
                    built[str(model)] = _build(model)
            except Exception as error:
                raise AssertionError(f'The model of {name} cannot be built: {error}') from error
    return {name: built[str(read_config(name).model)] for name in PATHS}


# ---- all configs


def test_configs__recipe_card_and_little_else():
    for name, path in PATHS.items():
        _, card, body = path.read_text().split('"""', 2)
        assert 'Train:' in card and 'Hardware:' in card and path.name in card, name
        if name in SCHEDULED:
            assert 'Paper:' in card and 'Expected:' in card, name
            assert not re.search(r'Expected: +PQ', card) or 'not measured by us' in card, name

        num_lines = sum(bool(line.strip()) for line in body.splitlines())
        if '/relaxations/remax.py' in body:
            assert num_lines <= 10, name
        elif "_base_ = '" in body:  # a single parent
            assert num_lines <= 30, name


def test_configs__classes_of_their_dataset(networks):
    for name, network in networks.items():
        loaders = (read_config(name)[f'{split}_dataloader'] for split in ('train', 'val', 'test'))
        for dataset in {DATASETS.get(loader.dataset.type) for loader in loaders}:
            if 'thing_classes' in dataset.METAINFO:
                check_class_counts(network, dataset.METAINFO, name)


def test_configs__pipelines_can_be_built():
    for name in PATHS:
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            for step in read_config(name)[loader].dataset.pipeline:
                try:
                    TRANSFORMS.build(step)
                except Exception as error:
                    raise AssertionError(f'{step.type} of {name}, {loader} cannot be built') from error


def test_configs__views_of_the_test_pipeline():
    for name in PATHS:
        config = read_config(name)
        if 'tta_model' not in config:
            assert re.search('mask2?former', name), name  # their masks are no softmax over the slots
            continue
        assert config.tta_model == dict(type='PanopticTTAModel')
        *steps, merge = config.tta_pipeline
        *expected, pack = config.test_dataloader.dataset.pipeline
        assert steps == expected, name
        flips, packs = merge.transforms
        assert [flip.prob for flip in flips] == [0, 1] and packs == [pack], name


@pytest.fixture(scope='module')
def parameters(networks) -> Dict[str, int]:
    """Parameters at inference, of every config that states them here or on its recipe card."""
    stated = [name for name in PATHS if name in PARAMETERS or STATED.search(PATHS[name].read_text())]
    counts = {network: count_parameters(inference_copy(network)) for network in {networks[n] for n in stated}}
    return {name: counts[networks[name]] for name in stated}


def test_configs__parameters_at_inference(parameters):
    assert {name: parameters[name] for name in PARAMETERS} == PARAMETERS


def test_configs__parameters_on_the_recipe_card(parameters):
    cards = {name: STATED.search(PATHS[name].read_text()) for name in parameters}
    stated = {name: card[1] for name, card in cards.items() if card}
    assert stated and stated == {name: f'{parameters[name] / 1e6:.1f}' for name in stated}


@pytest.mark.slow
@pytest.mark.parametrize('name', GMACS)
def test_config__multiply_accumulates(name):
    model = _build(read_config(name).model).to_empty(device='cpu')
    assert measure_complexity(model, (800, 1200)).macs / 1e9 == pytest.approx(GMACS[name], rel=2e-3)


@pytest.mark.parametrize('name, pretrained', [('max-deeplab-s_8xb8-100k_coco-641', 41_343_424),
                                              ('max-deeplab-l_8xb8-100k_coco-1025', 175_115_392)])
def test_max_deeplab_config__only_the_pretrained_part_learns_more_slowly(networks, name, pretrained):
    # deeplab2's counts of the backbones that it trains on ImageNet.
    groups = group_parameters(networks[name], 1., 0., read_config(name).optim_wrapper.paramwise_cfg.lr_mult)
    assert sum(p.numel() for group in groups if group['lr'] == 0.1 for p in group['params']) == pretrained


# ---- ReMaX and its parents


def test_remax_b_config__relaxations_of_the_paper(networks):
    # arXiv 2306.17319, Sec. 4.2: ReMask on the first 4 stages, eta, weight of the stages' semantic loss.
    head = networks['remax-b_r50_8xb8-50k_coco-1281'].panoptic_head
    remasks = [layer.remask for layer in head.transformer_decoder.layers]
    assert [remask is not None for remask in remasks] == [True] * 4 + [False] * 2
    assert head.criterion.reclass.smoothing == 0.1
    assert head.criterion.loss_stage_sem.loss_weight == 0.5


def _plain(model: ConfigDict) -> ConfigDict:
    """A model without the relaxations."""
    model = copy.deepcopy(model)
    head = model.panoptic_head
    del head.remask, head.criterion.reclass, head.criterion.loss_stage_sem
    assert head.criterion.loss_mask_id.type == 'SigmoidMaskIDLoss'
    head.criterion.loss_mask_id.type = 'SoftmaxMaskIDLoss'
    return model


def test_remax_configs__data_and_model_of_their_parents():
    for name in (name for name in PUBLISHED if name.startswith('remax')):
        parent = re.sub('^remax(-[tsmb])?_', 'kmax_', name).replace('remax-max', 'max')
        config, parent = read_config(name), read_config(parent)
        model = _plain(config.model)
        if name.startswith('remax-m_'):  # Table 12: one decoder layer per stride
            assert model.panoptic_head.transformer_decoder.num_layers == [1, 1, 1]
            model.panoptic_head.transformer_decoder.num_layers = [2, 2, 2]
        assert model == parent.model, name
        for key in ('train_dataloader', 'val_dataloader', 'test_dataloader', 'val_evaluator'):
            assert config[key] == parent[key], f'{key} of {name}'


@torch.no_grad()
def _with_weights(model: nn.Module) -> nn.Module:
    """Random weights for a model of the meta device, in less time than its own initialization takes."""
    model = model.to_empty(device='cpu').eval()
    for name, value in [*model.named_parameters(), *model.named_buffers()]:
        if value.ndim > 1:
            value.normal_(std=value[0].numel()**-0.5)
        elif name.endswith(('bias', 'running_mean')):
            value.uniform_(-0.5, 0.5)
        elif value.is_floating_point():
            value.uniform_(0.5, 1.5)
        else:
            value.zero_()
    return model


@pytest.mark.parametrize(
    'name', [pytest.param(name, marks=[pytest.mark.slow] * (name not in QUICK)) for name in RELAXED])
def test_remax_config__is_its_kmax_parent_at_inference(name):
    """Same parameters by name and shape, and with the same weights bit for bit the same predictions."""
    model = read_config(RELAXED[name]).model
    remax, kmax = _with_weights(_build(model)), inference_copy(_build(_plain(model)))
    stripped = inference_copy(remax).state_dict()
    assert {key: value.shape for key, value in stripped.items()} == \
        {key: value.shape for key, value in kmax.state_dict().items()}

    kmax.to_empty(device='cpu').load_state_dict(stripped)
    image = torch.randn(1, 3, 33, 33)
    with torch.no_grad():
        ours, theirs = remax(image, mode='tensor'), kmax(image, mode='tensor')
    assert len(ours) == len(theirs)
    for a, b in zip(ours, theirs):
        assert a.relaxed_mask_logits is None and a.sem_logits is None
        assert torch.equal(a.class_logits, b.class_logits)
        assert torch.equal(a.mask_logits, b.mask_logits)
        assert torch.isfinite(a.mask_logits).all() and a.mask_logits.std() > 0


# ---- training steps


def _shrink(config: Config) -> Config:
    """The same model for small images, with fewer mask slots and samples, from scratch."""
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


def _initial_slots(model: nn.Module) -> nn.Parameter:
    """Cluster centers, or the memory of MaX-DeepLab."""
    if hasattr(model.backbone, 'memory'):
        return model.backbone.memory
    return model.panoptic_head.transformer_decoder.cluster_centers


def _batch() -> dict:
    """Two images as a data loader returns them: two things, one stuff segment, some void."""
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


@pytest.mark.slow
@pytest.mark.parametrize('name', OWN)
def test_config__trains_for_a_step(name):
    config = _shrink(Config.fromfile(PATHS[name]))
    model = MODELS.build(config.model).train()
    slots = _initial_slots(model)
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
