import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData

from tests.conftest import REPOSITORY

CONFIG = REPOSITORY / 'configs' / 'mini' / 'max-deeplab-s_1xb8-1k_mini-129.py'
SIDE = 65


def _config():
    config = Config.fromfile(CONFIG)
    config.model.data_preprocessor.pad_size = (SIDE, SIDE)
    config.model.backbone.num_slots = 8
    return config


def _batch(size=1):
    """Images as from a data loader: a thing and stuff, with a stripe of void."""
    inputs, samples = [], []
    for _ in range(size):
        image = torch.full((3, SIDE, SIDE), 30, dtype=torch.uint8)
        segment_map = torch.full((1, SIDE, SIDE), 2, dtype=torch.uint8)
        image[:, 16:48, 16:48], segment_map[:, 16:48, 16:48] = 220, 1
        segment_map[:, -4:] = 0
        sample = DetDataSample(
            metainfo=dict(
                img_path='drawn',
                img_shape=(SIDE, SIDE),
                ori_shape=(2 * SIDE, 2 * SIDE),
                batch_input_shape=(SIDE, SIDE)))
        sample.gt_panoptic_seg = PixelData(segment_map=segment_map)
        sample.gt_segments = InstanceData(labels=torch.tensor([3, 8]), is_thing=torch.tensor([True, False]))
        inputs.append(image)
        samples.append(sample)
    return dict(inputs=inputs, data_samples=samples)


@pytest.fixture
def model():
    init_default_scope('mmdet')
    return MODELS.build(_config().model)


def test_max_deeplab__training_step_updates_both_paths(model):
    model.train()
    before = {name: parameter.detach().clone() for name, parameter in model.named_parameters()}
    losses = model.train_step(_batch(2), build_optim_wrapper(model, _config().optim_wrapper))
    assert {'loss_cls', 'loss_mask_id', 'loss_dice', 'loss_insdis', 'loss_sem'} <= set(losses)
    assert all(torch.isfinite(loss).all() for loss in losses.values())
    updated = {name for name, value in model.named_parameters() if not torch.equal(value, before[name])}
    assert {'backbone.memory', 'backbone.stem.0.conv.weight'} <= updated
    assert any(name.startswith('backbone.dual_path_layers') for name in updated)


@pytest.mark.slow
def test_max_deeplab__overfits_one_image(model):
    model.train()
    wrapper = build_optim_wrapper(model, _config().optim_wrapper)
    first = None
    for _ in range(30):
        loss = model.train_step(_batch(2), wrapper)['loss'].item()
        first = loss if first is None else first
    assert loss < 0.5 * first

    # After an update of the running statistics, it predicts both segments.
    for module in model.modules():
        if isinstance(module, torch.nn.modules.batchnorm._BatchNorm):
            module.momentum = 0.5
    with torch.no_grad():
        for _ in range(10):
            model(**model.data_preprocessor(_batch(2), True), mode='loss')
    model.eval()
    sample, = model.test_step(_batch())
    found = sample.pred_panoptic_seg.sem_seg
    assert found.shape == (1, 2 * SIDE, 2 * SIDE)  # at the size of the original image
    assert found[0, SIDE, SIDE] % 1000 == 3 and found[0, 4, 4] == 8
    labels = {segment['label'] for segment in sample.pred_panoptic_seg.metainfo['segments_info']}
    assert labels == {3, 8}
