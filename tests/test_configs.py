"""All configs can be built and trained, and have the numbers that are published for their models.

The expected values come from the papers and from google-research/deeplab2, not from the configs. mmdet's own
mask transformers have further tests in test_mask_former_configs.py.
"""
import copy
import re
from functools import lru_cache
from typing import Dict, Iterator, NamedTuple, Tuple

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
from tests.conftest import REPOSITORY

PATHS = {p.stem: p for p in sorted((REPOSITORY / 'configs').rglob('*.py')) if '_base_' not in p.parts}
OWN = [name for name in PATHS if not re.search('mask2?former', name)]
SCHEDULED = [name for name in OWN if '_8xb' in name]
PUBLISHED = [name for name in SCHEDULED if PATHS[name].parent.name != 'ablations']
MAX_DEEPLAB = [name for name in PUBLISHED if 'max-deeplab' in name]

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


class Recipe(NamedTuple):
    """How models are trained."""
    names: str  # pattern of the configs, with iterations and crop
    batch: int
    optimizer: str
    lr: float
    weight_decay: float
    schedule: str


# kMaX-DeepLab and MaX-DeepLab: deeplab2, configs/{coco,cityscapes,ade20k}/{kmax,max}_deeplab.
# ReMaX: arXiv 2306.17319, Sec. 4.2 and Fig. 4 (COCO), 4.3 (Cityscapes), 4.4 (ADE20K, as COCO). It does not
# state the weight decay of Cityscapes and ADE20K; the configs have that of the short COCO schedules.
RECIPES = (
    Recipe(r'kmax_.*-(50|100|150|200)k_coco-(641|1281)', 64, 'AdamW', 5e-4, 0.05, 'PolyLR'),
    Recipe(r'kmax_.*-100k_ade20k-(641|1281)', 64, 'AdamW', 5e-4, 0.05, 'PolyLR'),
    Recipe(r'kmax_.*-60k_cityscapes-1025x2049', 32, 'AdamW', 3e-4, 0.05, 'PolyLR'),
    Recipe(r'remax(-b)?_.*-(50|100)k_(coco|ade20k)-(641|1281)', 64, 'AdamW', 6e-3, 0.005, 'MultiStepLR'),
    Recipe(r'remax(-[tsmb])?_.*-(150|200)k_coco-(641|1281)', 64, 'AdamW', 6e-3, 0.02, 'MultiStepLR'),
    Recipe(r'remax_.*-60k_cityscapes-1025x2049', 32, 'AdamW', 3e-3, 0.005, 'MultiStepLR'),
    Recipe(r'(remax-)?max-deeplab-s_.*-(100|200|400)k_coco-(641|1025)', 64, 'Adam', 1e-3, 0, 'PolyLR'),
    Recipe(r'max-deeplab-l_.*-(100|200|400)k_coco-1025', 64, 'Adam', 3e-4, 0, 'PolyLR'),
)


class Settings(NamedTuple):
    """What kMaX-DeepLab sets for a dataset."""
    num_slots: int
    drop_path_rate: float  # of the transformer decoder
    loss_samples: Tuple[int, int]  # of instance discrimination and of the semantic loss, 0 for all pixels
    temperature: float  # of the samples for instance discrimination
    thresholds: Tuple[float, float, float]  # things, stuff, overlap
    mask_order_weight: int


# deeplab2, configs/{coco,cityscapes,ade20k}/kmax_deeplab; the 256 slots also arXiv 2306.17319, Sec. 4.3. As
# in the PyTorch release, there are no area limits and the semantic loss of Cityscapes takes all pixels.
SETTINGS: Dict[str, Settings] = {
    'coco-1281': Settings(128, 0.2, (4096, 4096), 1.5, (0.7, 0.5, 0.8), 1),
    'coco-641': Settings(128, 0.2, (4096, 4096), 1.5, (0.7, 0.5, 0.8), 1),
    'cityscapes-1025x2049': Settings(256, 0.2, (4096, 0), 0.6, (0.5, 0.3, 0.9), 0),
    'ade20k-1281': Settings(128, 0, (4096, 4096), 1.5, (0.4, 0.4, 0.8), 1),
    'ade20k-641': Settings(128, 0, (1024, 1024), 1.5, (0.4, 0.4, 0.8), 1),
}

# One config of each ReMaX model: the schedule does not change the network, nor does the crop of ADE20K.
RELAXED = {re.sub(r'_8xb[^_]*|-1281|-641', '', name): name for name in OWN if name.startswith('remax')}
QUICK = ('remax-t_mnv3-s_coco', 'remax-m_r50_coco', 'remax_convnext-t_coco', 'remax-max-deeplab-s_coco')


@pytest.fixture(autouse=True)
def _mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@lru_cache(maxsize=None)
def _read(name: str) -> Config:
    """A config that is not to be changed."""
    return Config.fromfile(PATHS[name])


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
        model = _read(name).model
        if str(model) not in built:
            try:
                with DefaultScope.overwrite_default_scope('mmdet'):
                    built[str(model)] = _build(model)
            except Exception as error:
                raise AssertionError(f'The model of {name} cannot be built: {error}') from error
    return {name: built[str(_read(name).model)] for name in PATHS}


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
        loaders = (_read(name)[f'{split}_dataloader'] for split in ('train', 'val', 'test'))
        for dataset in {DATASETS.get(loader.dataset.type) for loader in loaders}:
            if 'thing_classes' in dataset.METAINFO:
                check_class_counts(network, dataset.METAINFO, name)


def test_configs__pipelines_can_be_built():
    for name in PATHS:
        for loader in ('train_dataloader', 'val_dataloader', 'test_dataloader'):
            for step in _read(name)[loader].dataset.pipeline:
                try:
                    TRANSFORMS.build(step)
                except Exception as error:
                    raise AssertionError(f'{step.type} of {name}, {loader} cannot be built') from error


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
    model = _build(_read(name).model).to_empty(device='cpu')
    assert measure_complexity(model, (800, 1200)).macs / 1e9 == pytest.approx(GMACS[name], rel=2e-3)


# ---- recipes of the papers


def _sizes(pipeline: list) -> Iterator[Tuple[int, int]]:
    """(height, width) of every step with a fixed size, the steps for pasted segments included."""
    keys = dict(Resize='scale', RandomPad='size', RandomCrop='crop_size')  # each (width, height)
    for step in pipeline:
        if step.type == 'PanopticCopyPaste':
            yield from _sizes(step.partner_pipeline)
        elif step.type in keys:
            yield tuple(step[keys[step.type]])[::-1]


def test_configs__do_what_their_names_say():
    for name in SCHEDULED:
        config = _read(name)
        batch, iterations, height, _, width = re.search(r'_8xb(\d+)-(\d+)k_\w+-(\d+)(x(\d+))?$',
                                                        name).groups()
        assert config.train_dataloader.batch_size == int(batch), name
        assert config.auto_scale_lr.base_batch_size == 8 * int(batch), name
        assert config.train_cfg.max_iters == int(iterations) * 1000, name

        crop = (int(height), int(width or height))
        assert tuple(config.model.data_preprocessor.pad_size) == tuple(config.image_size) == crop, name
        assert set(_sizes(config.train_dataloader.dataset.pipeline)) == {crop}, name
        # Images of Cityscapes are not resized.
        expected = set() if 'cityscapes' in name else {crop}
        for loader in (config.val_dataloader, config.test_dataloader):
            assert set(_sizes(loader.dataset.pipeline)) == expected, name


def test_configs__recipes_of_the_papers():
    for name in PUBLISHED:
        expected, = (recipe for recipe in RECIPES if re.fullmatch(recipe.names, name))
        config = _read(name)
        optimizer, iterations = config.optim_wrapper.optimizer, config.train_cfg.max_iters
        warmup, decay = config.param_scheduler
        assert expected[1:] == (config.auto_scale_lr.base_batch_size, optimizer.type, optimizer.lr,
                                optimizer.weight_decay, decay.type), name
        assert 'clip_grad' not in config.optim_wrapper, name

        assert (warmup.type, warmup.begin, warmup.end) == ('LinearLR', 0, 5000), name
        if decay.type == 'PolyLR':
            assert (decay.begin, decay.end, decay.power) == (0, iterations, 0.9), name
        else:
            assert decay.milestones == [0.85 * iterations, 0.95 * iterations] and decay.gamma == 0.1, name

        # The pretrained part learns more slowly.
        parts = ['']
        if name in MAX_DEEPLAB:
            parts = ['.stem', '.stages'] + ['.inner_decoder'] * ('-l_' in name)
        lr_mult = {f'backbone{part}': 0.1 for part in parts}
        assert config.optim_wrapper.paramwise_cfg == dict(lr_mult=lr_mult), name


@pytest.mark.parametrize('name, pretrained', [('max-deeplab-s_8xb8-100k_coco-641', 41_343_424),
                                              ('max-deeplab-l_8xb8-100k_coco-1025', 175_115_392)])
def test_max_deeplab_config__only_the_pretrained_part_learns_more_slowly(networks, name, pretrained):
    # deeplab2's counts of the backbones that it trains on ImageNet.
    groups = group_parameters(networks[name], 1., 0., _read(name).optim_wrapper.paramwise_cfg.lr_mult)
    assert sum(p.numel() for group in groups if group['lr'] == 0.1 for p in group['params']) == pretrained


def test_configs__losses_and_thresholds_of_kmax_deeplab():
    for name in set(SCHEDULED) - set(MAX_DEEPLAB):
        model = _read(name).model
        head, test = model.panoptic_head, model.test_cfg
        decoder, criterion = head.transformer_decoder, head.criterion
        insdis, sem = criterion.loss_insdis, criterion.loss_sem
        found = Settings(decoder.num_slots, decoder.drop_path_rate,
                         (insdis.num_samples, sem.get('num_samples', 0)), insdis.sampling_temperature,
                         (test.thing_threshold, test.stuff_threshold, test.overlap_threshold),
                         test.mask_order_weight)
        assert found == SETTINGS[name.split('_')[-1]], name

        losses = ('loss_cls', 'loss_dice', 'loss_mask_id', 'loss_insdis', 'loss_sem')
        assert [criterion[loss].get('loss_weight', 1) for loss in losses] == [3, 3, 0.3, 1, 1], name
        assert (test.pixel_threshold, test.class_order_weight) == (0.4, 1), name
        assert (test.thing_area, test.stuff_area) == (0, 0), name


def test_configs__max_deeplab_as_in_deeplab2():
    for name in MAX_DEEPLAB:
        config = _read(name)
        large, fine = '-l_' in name, name.endswith('1025')
        steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
        sides = [(1024 if fine else 640) * tenths // 10 + 1 for tenths in range(5, 16)]
        assert steps['RandomChoiceResize'].scales == [(side, side) for side in sides], name
        assert {'RandomPad', 'RandomCrop', 'RandomFlip'} < set(steps), name
        assert 'PanopticCopyPaste' not in steps, name
        assert ('ColorPolicy' in steps) == large, name

        test = config.model.test_cfg
        assert (test.class_threshold, test.pixel_threshold) == (0.7, 0.4), name
        assert (test.thing_area, test.stuff_area) == ((256, 4096) if fine else (100, 1600)), name
        criterion = config.model.panoptic_head.criterion
        assert criterion.loss_insdis.num_things_classes == 80, name
        assert criterion.loss_sem == dict(type='SemanticLoss'), name  # of all pixels
        assert config.model.backbone.drop_path_rate == 0.2, name


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
        config, parent = _read(name), _read(parent)
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
    model = _read(RELAXED[name]).model
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


def _shrink(config: Config, side: int) -> Config:
    """The same model for small images, with fewer mask slots and samples, from scratch."""
    config.model.backbone.pop('init_cfg', None)
    config.model.data_preprocessor.pad_size = (side, side)
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


def _batch(side: int) -> dict:
    """Two images as a data loader returns them: two things, one stuff segment, some void."""
    inputs, samples = [], []
    for _ in range(2):
        segment_map = torch.zeros(1, side, side, dtype=torch.uint8)
        segment_map[:, 10:40, :30], segment_map[:, 20:50, 35:], segment_map[:, 50:] = 1, 2, 3
        sample = DetDataSample(
            metainfo=dict(img_path='drawn', img_shape=(side, side), ori_shape=(side, side)))
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(
            labels=torch.tensor([0, 2, 11]), is_thing=torch.tensor([True, True, False]))
        inputs.append(torch.randint(0, 256, (3, side, side), dtype=torch.uint8))
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.mark.slow
@pytest.mark.parametrize('name', OWN)
def test_config__trains_for_a_step(name):
    config = _shrink(Config.fromfile(PATHS[name]), side=65)
    model = MODELS.build(config.model).train()
    slots = _initial_slots(model)
    before = slots.detach().clone()
    trained, reached = [p for p in model.parameters() if p.requires_grad], set()
    for index, parameter in enumerate(trained):
        parameter.register_hook(lambda gradient, index=index: reached.add(index))
    losses = model.train_step(_batch(side=65), build_optim_wrapper(model, config.optim_wrapper))

    assert all(torch.isfinite(loss).all() for loss in losses.values())
    assert all(torch.isfinite(parameter).all() for parameter in model.parameters())
    assert not torch.equal(slots, before)
    # DistributedDataParallel waits for a gradient of each.
    assert len(reached) == len(trained)
