"""The two parts of the mask-ID loss, against loops, by hand, and on whole models."""
import copy
import itertools
import json
import math
import runpy
import sys

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.registry import DefaultScope
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

from remax_mm.analysis.loss_balance import (LossParts, collect_loss_balance, find_mask_id_loss,
                                            format_loss_balance, logarithmic_edges, measure_loss_balance,
                                            split_mask_id_loss, split_sigmoid_cross_entropy,
                                            split_softmax_cross_entropy, summarize_loss_balance)
from remax_mm.datasets.mini_panoptic import write_mini_panoptic
from remax_mm.models.losses import SigmoidMaskIDLoss, SoftmaxMaskIDLoss
from tests.conftest import REPOSITORY
from tests.tiny_model import NUM_CLASSES, detector_config
from tests.worked_example import random_prediction, random_slot_targets, random_targets, worked_example

LOSSES = [SoftmaxMaskIDLoss(), *(SigmoidMaskIDLoss(slot_reduction=way) for way in ('sum', 'mean', 'matched'))]


@pytest.fixture(autouse=True)
def _mmdet_scope():
    # mmengine's base model looks for the data preprocessor in the scope that a runner sets.
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def _reference_parts(logits: Tensor, masks: Tensor, void: Tensor, softmax: bool) -> list:
    """(false positive, false negative) of each image."""
    parts = []
    for b in range(len(logits)):
        positive = negative = 0.
        count = 0
        for y, x in itertools.product(*map(range, void.shape[1:])):
            if void[b, y, x]:
                continue
            count += 1
            z, g = logits[b, :, y, x].tolist(), masks[b, :, y, x].tolist()
            total = sum(math.exp(value) for value in z)
            for slot in range(len(z)):
                p = math.exp(z[slot]) / total if softmax else 1 / (1 + math.exp(-z[slot]))
                positive -= (1 - g[slot]) * math.log(1 - p)
                negative -= g[slot] * math.log(p)
        parts.append((positive / max(count, 1), negative / max(count, 1)))
    return parts


def _random_case(overlap: bool = False):
    prediction = random_prediction()
    return prediction.mask_logits, random_slot_targets(prediction, random_targets(overlap=overlap))


def _split(softmax: bool):
    return split_softmax_cross_entropy if softmax else split_sigmoid_cross_entropy


@pytest.mark.parametrize('softmax', [False, True])
@pytest.mark.parametrize('overlap', [False, True])
def test_split_cross_entropy__loops(softmax, overlap):
    logits, targets = _random_case(overlap)
    parts = _split(softmax)(logits, targets.masks, targets.void)
    expected = _reference_parts(logits, targets.masks, targets.void, softmax)
    torch.testing.assert_close(
        torch.stack(parts, 1), torch.tensor(expected, dtype=torch.float64), rtol=1e-12, atol=0)


def test_split_sigmoid_cross_entropy__by_hand():
    # Two pixels, each of another of two slots. Logit log 3 claims 3/4, logit 0 claims 1/2.
    logits = torch.tensor([[[[math.log(3), 0.]], [[0., math.log(3)]]]])
    masks = torch.tensor([[[[1., 0.]], [[0., 1.]]]])
    parts = split_sigmoid_cross_entropy(logits, masks, torch.zeros(1, 1, 2, dtype=torch.bool))
    # Each pixel: the right slot misses 1/4, the wrong one claims 1/2.
    assert parts.false_negative.item() == pytest.approx(math.log(4 / 3), rel=1e-6)
    assert parts.false_positive.item() == pytest.approx(math.log(2), rel=1e-6)


@pytest.mark.parametrize('num_slots', [2, 24, 128])
def test_split_cross_entropy__zero_logits(num_slots):
    # Fig. 1 of ReMaX: with 128 slots 127 should be off and one on, and none knows of it.
    logits = torch.zeros(1, num_slots, 3, 3)
    masks = torch.zeros(1, num_slots, 3, 3)
    masks[:, 1] = 1
    void = torch.zeros(1, 3, 3, dtype=torch.bool)
    sigmoid = split_sigmoid_cross_entropy(logits, masks, void)
    assert sigmoid.ratio.item() == pytest.approx(num_slots - 1, rel=1e-12)
    softmax = split_softmax_cross_entropy(logits, masks, void)
    expected = (num_slots - 1) * math.log(num_slots / (num_slots - 1)) / math.log(num_slots)
    assert softmax.ratio.item() == pytest.approx(expected, rel=1e-12)


@pytest.mark.parametrize('loss', LOSSES, ids=lambda loss: getattr(loss, 'slot_reduction', 'softmax'))
def test_split_mask_id_loss__is_the_loss(loss):
    """Both parts together are the sigmoid loss, the second alone is the softmax loss."""
    prediction = random_prediction()
    targets = random_slot_targets(prediction, random_targets())
    parts = split_mask_id_loss(loss, prediction.mask_logits, targets)
    charged = parts.false_negative if isinstance(loss, SoftmaxMaskIDLoss) else sum(parts)
    assert loss(prediction, targets).item() == pytest.approx(0.3 * charged.mean().item(), rel=1e-12)


def test_split_mask_id_loss__worked_example():
    prediction, _, targets = worked_example()
    assert sum(split_mask_id_loss(SigmoidMaskIDLoss(), prediction.mask_logits,
                                  targets)).item() == pytest.approx(
                                      1.554935, abs=6e-7)
    softmax = split_mask_id_loss(SoftmaxMaskIDLoss(), prediction.mask_logits, targets)
    assert 0.3 * softmax.false_negative.item() == pytest.approx(.127120, abs=6e-7)


@pytest.mark.parametrize('softmax', [False, True])
def test_split_cross_entropy__void_and_order_of_slots(softmax):
    logits, targets = _random_case()
    expected = _split(softmax)(logits, targets.masks, targets.void)
    noise = 100 * torch.randn_like(logits) * targets.void[:, None]
    order = torch.randperm(logits.shape[1])
    actual = _split(softmax)((logits + noise)[:, order], targets.masks[:, order], targets.void)
    torch.testing.assert_close(actual, expected, rtol=1e-12, atol=0)


@pytest.mark.parametrize('softmax', [False, True])
def test_split_cross_entropy__far_logits_stay_finite(softmax):
    # Confidently wrong: slot 0 claims slot 1's pixels by a distance at which float64 rounds p to 1.
    logits = torch.tensor([100., -100.]).view(1, 2, 1, 1)
    masks = torch.tensor([0., 1.]).view(1, 2, 1, 1)
    parts = _split(softmax)(logits, masks, torch.zeros(1, 1, 1, dtype=torch.bool))
    distance = 200 if softmax else 100
    assert parts.false_positive.item() == parts.false_negative.item() == pytest.approx(distance, rel=1e-12)


def test_summarize_loss_balance__leaves_out_images_without_labels():
    parts = LossParts(
        torch.tensor([1., 20., 900., 0.], dtype=torch.float64),
        torch.tensor([1., 2., 3., 0.], dtype=torch.float64))
    summary = summarize_loss_balance(parts)
    assert summary['images'] == 3
    assert summary['median'] == 10
    assert summary['share_imbalanced'] == pytest.approx(1 / 3)
    assert (summary['false_positive'], summary['false_negative']) == (307, 2)
    assert '| a | final | 10 | 1.9 to 271 | 33.3% | 307 | 2 |' in format_loss_balance(
        dict(a=dict(final=parts)))
    assert math.isnan(summarize_loss_balance(LossParts(parts.false_positive[3:], parts[1][3:]))['median'])


def test_logarithmic_edges__around_all():
    edges = logarithmic_edges([torch.tensor([0.3, 7.]), torch.tensor([240., float('inf'), 0., float('nan')])])
    np.testing.assert_allclose(edges[[0, 10, -1]], [.1, 1, 1000])
    assert len(edges) == 41
    np.testing.assert_allclose(logarithmic_edges([torch.zeros(2)])[[0, -1]], [1, 10])


def _batch(void: bool = False) -> dict:
    """One image of a thing on stuff, or of void only."""
    segment_map = torch.ones(1, 65, 65, dtype=torch.uint8)
    segment_map[:, :30] = 2
    sample = DetDataSample(metainfo=dict(img_shape=(65, 65), ori_shape=(65, 65), img_id=0))
    sample.gt_panoptic_seg = PixelData(segment_map=segment_map * (not void))
    sample.gt_segments = InstanceData(
        labels=torch.tensor([1, NUM_CLASSES - 1]), is_thing=torch.tensor([1, 0]) > 0)
    return dict(inputs=[torch.randint(0, 255, (3, 65, 65), dtype=torch.uint8)], data_samples=[sample])


def test_collect_loss_balance__is_what_training_sees():
    torch.manual_seed(0)
    model = MODELS.build(detector_config(relaxed=True)).eval()
    state = copy.deepcopy(model.state_dict())
    batch = _batch()
    outputs = collect_loss_balance(model, [batch, _batch(), _batch(void=True)])

    # Nothing has changed, batch statistics included
    assert not model.training
    for name, value in model.state_dict().items():
        assert torch.equal(value, state[name]), name

    # The sums are the terms of the loss
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
    """A tiny model on the drawn mini set."""
    write_mini_panoptic(tmp_path / 'data', 4, 2, 65, 0)
    config = Config.fromfile(REPOSITORY / 'configs/mini/kmax_mnv3-s_1xb8-1k_mini-129.py')
    model = detector_config()
    model['panoptic_head']['num_things_classes'] = model['panoptic_fusion_head']['num_things_classes'] = 7
    model['panoptic_head']['num_stuff_classes'] = model['panoptic_fusion_head']['num_stuff_classes'] = 5
    model['panoptic_head']['semantic_head']['num_classes'] = 12
    model['panoptic_head']['transformer_decoder']['remask']['semantic_head']['num_classes'] = 12
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


def _run_tool(monkeypatch, *arguments):
    script = REPOSITORY / 'tools/analysis_tools/loss_balance.py'
    monkeypatch.setattr(sys, 'argv', [str(script), *map(str, arguments)])
    runpy.run_path(str(script), run_name='__main__')


def test_tool__compares_runs(config, monkeypatch, tmp_path, capsys):
    path, checkpoint = tmp_path / 'tiny.py', tmp_path / 'iter_7.pth'
    config.dump(path)
    torch.save(dict(state_dict=MODELS.build(config.model).state_dict()), checkpoint)
    out = tmp_path / 'out'
    _run_tool(monkeypatch, path, path, '--checkpoints', 'none', checkpoint, '--num-batches', 1, '--out-dir',
              out)

    printed = capsys.readouterr().out
    assert '| tiny, untrained | all |' in printed and '| tiny iter_7 | d0.unrelaxed |' in printed
    numbers = json.loads((out / 'loss_balance.json').read_text())
    assert list(numbers['runs']) == ['tiny, untrained', 'tiny iter_7']
    final = numbers['runs']['tiny iter_7']['final']
    assert sum(final['histogram']) == len(final['false_positive']) == final['summary']['images'] == 2
    assert len(final['histogram']) == len(numbers['ratio_edges']) - 1
    assert (out / 'loss_balance.png').read_bytes()[:4] == b'\x89PNG'


def test_tool__wrong_input(config, monkeypatch, tmp_path):
    path, other = tmp_path / 'tiny.py', tmp_path / 'other.pth'
    config.dump(path)
    torch.save(dict(state_dict=torch.nn.Linear(1, 1).state_dict()), other)
    with pytest.raises(ValueError, match='each of the 1 configs, but got 2'):
        _run_tool(monkeypatch, path, '--checkpoints', 'none', other)
    with pytest.raises(ValueError, match='different names'):
        _run_tool(monkeypatch, path, path)
    with pytest.raises(FileNotFoundError, match='missing.pth'):
        _run_tool(monkeypatch, path, '--checkpoints', tmp_path / 'missing.pth')
    with pytest.raises(RuntimeError, match='do not match exactly'):
        _run_tool(monkeypatch, path, '--checkpoints', other)
