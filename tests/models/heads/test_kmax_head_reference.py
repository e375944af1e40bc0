"""The head of kMaX-DeepLab against numbers of the public PyTorch code, with the same weights."""
import copy
import json

import numpy as np
import pytest
import torch
from mmdet.registry import MODELS
from torch.nn.utils.rnn import pad_sequence

from remax_mm.models.layers import resize_to
from remax_mm.structures import PanopticTargets
from tests.reference_names import reference_names
from tests.reference_weights import reference_state_dict

IN_CHANNELS = (256, 512, 1024, 2048)
NUM_CLASSES = 7
OUTPUTS = ('aux0', 'aux1', 'aux2', 'final')
# Our loss -> loss of the reference and its weight.
LOSSES = dict(
    loss_cls=('loss_ce', 3.0),
    loss_mask_id=('loss_mask', 0.3),
    loss_dice=('loss_dice', 3.0),
    loss_insdis=('loss_pixel_insdis', 1.0),
    loss_sem=('loss_aux_semantic', 1.0))


@pytest.fixture(scope='module')
def listed(reference_dir):
    """Shape and first values of each weight, by its name in the reference."""
    return json.loads((reference_dir / 'head_weights_spec.json').read_text())


@pytest.fixture(scope='module')
def reference_head(listed):
    """The head with the reference's weights in float32 and eval mode, which is not to be changed."""
    with torch.device('meta'):
        head = MODELS.build(
            dict(
                type='KMaXHead',
                num_things_classes=4,
                num_stuff_classes=3,
                in_channels=IN_CHANNELS,
                pixel_decoder=dict(type='KMaXPixelDecoder', num_blocks=[1, 1, 1, 1]),
                transformer_decoder=dict(type='KMaXTransformerDecoder', num_slots=12, num_layers=[1, 1, 1]),
                semantic_head=dict(type='ASPPSemanticHead', num_classes=NUM_CLASSES + 1),
                criterion=dict(
                    type='PanopticCriterion',
                    assigner=dict(type='PQSimilarityAssigner'),
                    loss_cls=dict(type='PQClassLoss', loss_weight=3.0),
                    loss_dice=dict(type='PQMaskLoss', loss_weight=3.0),
                    loss_mask_id=dict(type='SoftmaxMaskIDLoss', loss_weight=0.3),
                    loss_insdis=dict(
                        type='InstanceDiscriminationLoss', num_samples=289, sampling_temperature=1.5),
                    loss_sem=dict(type='SemanticLoss', num_samples=289, sampling_temperature=2.0))))
    weights = head.state_dict()
    names = reference_names(weights, listed, prefix='panoptic_head.')
    head.to_empty(device='cpu').load_state_dict(reference_state_dict(names, weights))
    return head.eval()


@pytest.fixture(scope='module')
def features(reference_dir):
    inputs = np.load(reference_dir / 'head_inputs.npz')
    return [torch.from_numpy(inputs[name]) for name in ('res2', 'res3', 'res4', 'res5')]


@pytest.fixture(scope='module')
def predictions(features, reference_head):
    """Predictions in float32, by the names of the reference's outputs."""
    with torch.no_grad():
        return dict(zip(OUTPUTS, reference_head(features)))


def test_reference_names__every_key_with_its_shape(listed, reference_head):
    weights = reference_head.state_dict()
    names = reference_names(weights, listed, prefix='panoptic_head.')
    shapes = {theirs: list(weights[ours].shape) for ours, theirs in names.items()}
    assert shapes == {name: entry['shape'] for name, entry in listed.items()}
    for ours, theirs in names.items():
        if not theirs.endswith('num_batches_tracked'):
            first = weights[ours].flatten()[:3]
            torch.testing.assert_close(
                first, torch.tensor(listed[theirs]['first3'])[:len(first)], rtol=1e-6, atol=0)


@pytest.mark.parametrize('output', OUTPUTS)
def test_kmax_head__class_logits(reference_dir, predictions, output):
    expected = torch.from_numpy(np.load(reference_dir / 'head_eval_preds.npz')[f'class_logits_{output}'])
    torch.testing.assert_close(predictions[output].class_logits, expected, atol=1e-4, rtol=0)


@pytest.mark.parametrize('output', OUTPUTS)
def test_kmax_head__mask_logits(reference_dir, predictions, output):
    reference = np.load(reference_dir / 'head_eval_preds.npz')
    mask_logits = predictions[output].mask_logits
    expected = torch.from_numpy(reference[f'mask_logits_{output}'])
    torch.testing.assert_close(resize_to(mask_logits, (17, 17)), expected, atol=1e-3, rtol=0)
    if output != 'final':
        expected = torch.from_numpy(reference[f'mask_logits_native_{output}'])
        torch.testing.assert_close(mask_logits, expected, atol=1e-3, rtol=0)
        assert (mask_logits.argmax(1).numpy() == reference[f'assignment_{output}']).all()


@pytest.mark.parametrize('output', OUTPUTS)
def test_kmax_head__pixel_features(reference_dir, predictions, output):
    expected = torch.from_numpy(
        np.load(reference_dir / 'head_eval_pixel_features.npz')[f'pixel_feature_{output}'])
    feature = resize_to(predictions[output].pixel_feature, (17, 17))
    torch.testing.assert_close(feature, expected, atol=1e-4, rtol=0)


def _targets(reference_dir):
    """The segments of the reference's training step."""
    truth = np.load(reference_dir / 'loss_inputs.npz')

    def pad(name, value):
        parts = [torch.from_numpy(truth[f'gt{image}_{name}']) for image in range(2)]
        return pad_sequence(parts, batch_first=True, padding_value=value)

    sem_seg = pad('semantic_masks', -1)
    return PanopticTargets(
        masks=pad('masks', 0).double(),
        labels=pad('labels', NUM_CLASSES),
        void=sem_seg == -1,
        sem_seg=sem_seg.masked_fill(sem_seg == -1, NUM_CLASSES))


@pytest.fixture(scope='module')
def training_step(reference_dir, features, reference_head):
    """One forward and backward pass in float64 with batch statistics; the head, its inputs and outputs."""
    torch.manual_seed(0)
    head = copy.deepcopy(reference_head).double().train()
    for module in head.modules():
        if isinstance(module, torch.nn.Dropout):
            module.p = 0.0
    inputs = [feature.double().requires_grad_() for feature in features]
    predictions, sem_logits = head(inputs), head.semantic_head(inputs)
    losses = head.criterion(predictions, _targets(reference_dir), sem_logits)
    sum(losses.values()).backward()
    return head, inputs, predictions, sem_logits, losses


@pytest.fixture(scope='module')
def expected_step(reference_dir):
    return json.loads((reference_dir / 'head_train_step.json').read_text())


def test_kmax_head__predictions_of_the_reference_in_training(reference_dir, training_step):
    _, _, predictions, sem_logits, _ = training_step
    expected = np.load(reference_dir / 'head_train_preds.npz')
    outputs = dict(
        class_logits_final=predictions[-1].class_logits,
        mask_logits_final=predictions[-1].mask_logits,
        mask_logits_aux0=resize_to(predictions[0].mask_logits, (17, 17)),
        aux_semantic_pred=sem_logits)
    assert set(outputs) == set(expected)
    for name, output in outputs.items():
        assert np.abs(output.detach().numpy() - expected[name]).max() < 1e-4, name


def test_kmax_head__losses_of_the_reference(training_step, expected_step):
    losses = training_step[-1]
    expected = {}
    for ours, (theirs, weight) in LOSSES.items():
        for suffix, prefix in (('', ''), ('_0', 'd0.'), ('_1', 'd1.'), ('_2', 'd2.')):
            if theirs + suffix in expected_step['losses_float64']:
                expected[prefix + ours] = weight * expected_step['losses_float64'][theirs + suffix]
    assert len(expected) == len(expected_step['losses_float64'])
    assert set(losses) == set(expected)
    for name, loss in losses.items():
        assert loss.item() == pytest.approx(expected[name], rel=1e-6), name
    assert sum(losses.values()).item() == pytest.approx(expected_step['total_weighted_float64'], rel=1e-6)


def test_kmax_head__gradients_of_the_reference(listed, training_step, expected_step):
    head, inputs, _, _, _ = training_step
    for name, feature in zip(('res2', 'res3', 'res4', 'res5'), inputs):
        expected = expected_step['grad_norm_of_inputs_float64'][name]
        assert feature.grad.norm().item() == pytest.approx(expected, rel=1e-5), name

    parameters = dict(head.named_parameters())
    expected = expected_step['grad_norm_of_parameters_float64']
    names = reference_names(parameters, listed, prefix='panoptic_head.')
    assert set(names.values()) == set(expected)
    floor = 1e-6 * max(expected.values())
    compared = {ours: theirs for ours, theirs in names.items() if expected[theirs] > floor}
    assert len(compared) == 294
    for ours, theirs in names.items():
        norm = parameters[ours].grad.norm().item()
        assert norm == pytest.approx(expected[theirs], rel=1e-5, abs=0 if ours in compared else floor), ours


def test_kmax_head__running_statistics_of_the_reference(listed, training_step, expected_step):
    buffers = dict(training_step[0].named_buffers())
    names = reference_names(buffers, listed, prefix='panoptic_head.')
    expected = expected_step['running_stats_norm_after_one_step_float64']
    statistics = {
        ours: theirs
        for ours, theirs in names.items() if not theirs.endswith('num_batches_tracked')
    }
    assert set(statistics.values()) == set(expected)
    for ours, theirs in statistics.items():
        assert buffers[ours].norm().item() == pytest.approx(expected[theirs], rel=1e-6), ours
