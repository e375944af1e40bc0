"""The loss balance of whole models: the terms of a training step, and by hand for equal mask logits."""
import copy

import pytest
import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData

from remax_mm.analysis.model_loss_balance import (collect_loss_balance, collect_query_balance,
                                                  find_mask_id_loss, measure_loss_balance, split_mask_id_loss)
from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from remax_mm.models.losses import SigmoidMaskIDLoss, SoftmaxMaskIDLoss
from tests.conftest import REPOSITORY
from tests.mask_former_config import FAMILIES, NUM_QUERIES
from tests.mask_former_config import detector_config as mask_former_config
from tests.mask_former_config import drawn_batch
from tests.tiny_model import NUM_CLASSES, detector_config
from tests.worked_example import random_prediction, random_slot_targets, random_targets, worked_example

LOSSES = [
    SoftmaxMaskIDLoss(),
    *(SigmoidMaskIDLoss(slot_reduction=reduction) for reduction in ('sum', 'mean', 'matched'))
]


@pytest.fixture(autouse=True)
def _mmdet_scope():
    # mmengine's base model builds the data preprocessor in the default scope, which a runner sets.
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.mark.parametrize('loss', LOSSES, ids=lambda loss: getattr(loss, 'slot_reduction', 'softmax'))
def test_split_mask_id_loss__is_the_loss(loss):
    """The sum of both parts is the sigmoid loss, the second part is the softmax loss."""
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    parts = split_mask_id_loss(loss, prediction.mask_logits, targets)
    expected = parts.false_negative if isinstance(loss, SoftmaxMaskIDLoss) else sum(parts)
    assert loss(prediction, targets).item() == pytest.approx(0.3 * expected.mean().item(), rel=1e-12)


def test_split_mask_id_loss__worked_example():
    prediction, _, targets = worked_example()
    assert sum(split_mask_id_loss(SigmoidMaskIDLoss(), prediction.mask_logits,
                                  targets)).item() == pytest.approx(
                                      1.554935, abs=6e-7)
    softmax = split_mask_id_loss(SoftmaxMaskIDLoss(), prediction.mask_logits, targets)
    assert 0.3 * softmax.false_negative.item() == pytest.approx(.127120, abs=6e-7)


def _batch(void: bool = False) -> dict:
    """One image with a thing on stuff, or only void."""
    segment_map = torch.ones(1, 65, 65, dtype=torch.uint8)
    segment_map[:, :30] = 2
    sample = DetDataSample(metainfo=dict(img_shape=(65, 65), ori_shape=(65, 65), img_id=0))
    sample.gt_panoptic_seg = PixelData(segment_map=segment_map * (not void))
    sample.gt_segments = InstanceData(
        labels=torch.tensor([1, NUM_CLASSES - 1]), is_thing=torch.tensor([1, 0]) > 0)
    return dict(inputs=[torch.randint(0, 255, (3, 65, 65), dtype=torch.uint8)], data_samples=[sample])


def test_collect_loss_balance__equals_the_training_losses():
    torch.manual_seed(0)
    model = MODELS.build(detector_config(relaxed=True)).eval()
    state = copy.deepcopy(model.state_dict())
    batch = _batch()
    outputs = collect_loss_balance(model, [batch, _batch(), _batch(void=True)])

    # The model does not change, nor do its batch statistics.
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name

    # The sums are the terms of the loss.
    assert set(outputs) == {'all', 'final', 'd0', 'd0.unrelaxed', 'd1', 'd1.unrelaxed', 'd2'}
    losses = model.train()(**model.data_preprocessor(batch, True), mode='loss')
    for name in ('final', 'd0', 'd1', 'd2'):
        term = losses['loss_mask_id' if name == 'final' else f'{name}.loss_mask_id']
        assert 0.3 * sum(outputs[name])[0].item() == pytest.approx(term.item(), rel=1e-5)
    assert sum(outputs['d0'])[0] != sum(outputs['d0.unrelaxed'])[0]
    for part in (0, 1):
        whole = sum(outputs[name][part] for name in ('final', 'd0', 'd1', 'd2'))
        torch.testing.assert_close(outputs['all'][part], whole)
    assert outputs['final'].ratio.shape == (3, )
    assert outputs['all'].ratio.isnan().tolist() == [False, False, True]


def test_collect_loss_balance__wrong_input():
    model = MODELS.build(detector_config(relaxed=False))
    assert isinstance(find_mask_id_loss(model), SoftmaxMaskIDLoss)
    with pytest.raises(ValueError, match='at least one batch'):
        collect_loss_balance(model, [])
    with pytest.raises(ValueError, match='Linear has 0'):
        collect_loss_balance(torch.nn.Linear(1, 1), [])


@pytest.fixture
def config(tmp_path) -> Config:
    """A small model on the mini dataset."""
    write_mini_panoptic(tmp_path / 'data', 4, 2, 65, 0)
    config = Config.fromfile(REPOSITORY / 'configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py')
    model = detector_config()
    model['panoptic_head'].update(num_things_classes=7, num_stuff_classes=5)
    pipeline = [dict(type='LoadImageFromFile'), dict(type='LoadPanopticMap'), dict(type='PackPanopticInputs')]
    config.merge_from_dict(dict(train_dataloader=dict(batch_size=2, num_workers=0, persistent_workers=False)))
    config.train_dataloader.dataset.update(data_root=str(tmp_path / 'data'), pipeline=pipeline)
    config.model = model
    return config


def test_measure_loss_balance__same_seed_same_numbers(config):
    first, again = (measure_loss_balance(config, num_batches=2, seed=3) for _ in range(2))
    other = measure_loss_balance(config, num_batches=2, seed=4)
    assert first['final'].ratio.shape == (4, )
    torch.testing.assert_close(again, first, rtol=0, atol=0)
    assert not torch.equal(other['final'].ratio, first['final'].ratio)
    with pytest.raises(ValueError, match='at least 1, but got 0'):
        measure_loss_balance(config, num_batches=0)


def _mask_former(family: str, relaxed: bool = True) -> torch.nn.Module:
    model = MODELS.build(mask_former_config(family, relaxed))
    for module in model.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    return model


@pytest.mark.parametrize('relaxed', [True, False])
@pytest.mark.parametrize('family', FAMILIES)
def test_collect_query_balance__is_the_cross_entropy_of_matched_queries(family, relaxed):
    model = _mask_former(family, relaxed)
    state = copy.deepcopy(model.state_dict())
    outputs = collect_query_balance(model.eval(), [drawn_batch(), drawn_batch(1)])
    assert not model.training and all(torch.equal(v, state[k]) for k, v in model.state_dict().items())

    early = [f'd{index}' for index in range(3 if family == 'Mask2Former' else 2)]
    names = ['final', *early, *(f'{name}.unrelaxed' for name in early[:2] if relaxed)]
    assert set(outputs) == {'all', *names, *(f'{name}.all_queries' for name in ('final', *early))}
    for part in (0, 1):
        torch.testing.assert_close(outputs['all'][part], sum(outputs[n][part] for n in ('final', *early)))

    # The last image, alone in its batch, with the matching of mmdet's MaskFormer, which uses all pixels.
    head, plain = model.train().panoptic_head, _mask_former('MaskFormer', False).panoptic_head
    plain.assigner = head.assigner
    with torch.no_grad():
        data = model.data_preprocessor(drawn_batch(1), training=True)
        features = model.extract_feat(data['inputs'])
        all_classes, all_masks = head(features, data['data_samples'])
        sample, = data['data_samples']
        gt = head.preprocess_gt([sample.gt_instances], [sample.gt_sem_seg])
        for name, classes, masks in zip([*early, 'final'], all_classes, all_masks):
            _, _, targets, matched, _ = plain.get_targets([classes[0]], [masks[0]], gt, [{}])
            logits = masks[0][matched[0] > 0]
            target = F.interpolate(targets[0][:, None].double(), logits.shape[-2:], mode='nearest')[:, 0]
            loss = F.binary_cross_entropy_with_logits(logits.double(), target, reduction='none')
            key = f'{name}.unrelaxed' if f'{name}.unrelaxed' in outputs else name
            found = outputs[key]
            assert found.false_positive[-1].item() == pytest.approx(
                float(loss[target == 0].sum()) / target[0].numel(), rel=1e-5)
            assert found.false_negative[-1].item() == pytest.approx(
                float(loss[target == 1].sum()) / target[0].numel(), rel=1e-5)


@pytest.mark.parametrize('family', FAMILIES)
def test_collect_query_balance__equal_mask_logits(family):
    # All logits are 0 and have the same loss, so that the ratio counts pixels: four segments cover all pixels
    # but a void corner of 6 x 20, and four of six queries are matched.
    model = _mask_former(family)
    torch.nn.init.zeros_(model.panoptic_head.mask_embed[-1].weight)
    torch.nn.init.zeros_(model.panoptic_head.mask_embed[-1].bias)
    outputs = collect_query_balance(model, [drawn_batch(1, void=False)])
    assert outputs['final'].ratio.item() == pytest.approx(4 - 1, rel=1e-12)
    assert outputs['d0'].ratio.item() == outputs['d0.unrelaxed'].ratio.item() == pytest.approx(3, rel=1e-12)
    assert outputs['d0.all_queries'].ratio.item() == pytest.approx(NUM_QUERIES - 1, rel=1e-12)
    labeled = 16 * 16 - 2 * 5  # cells of 4 x 4 pixels, sampled at their first pixel
    outputs = collect_query_balance(model, [drawn_batch(1)])
    assert outputs['final'].ratio.item() == pytest.approx((4 * 256 - labeled) / labeled, rel=1e-12)


def test_collect_query_balance__relaxed_masks_are_amplified():
    outputs = collect_query_balance(_mask_former('Mask2Former'), [drawn_batch()])
    for part in ('d0', 'd1'):
        assert (outputs[part].false_positive > outputs[f'{part}.unrelaxed'].false_positive).any()
        assert not torch.equal(outputs[part].false_negative, outputs[f'{part}.unrelaxed'].false_negative)


def test_measure_loss_balance__model_of_mmdet(config):
    config.model = mask_former_config('Mask2Former', True, num_things=7, num_stuff=5)
    outputs = measure_loss_balance(config, num_batches=1)
    assert outputs['final'].ratio.shape == (2, ) and 'd0.all_queries' in outputs
    torch.testing.assert_close(measure_loss_balance(config, num_batches=1), outputs, rtol=0, atol=0)
