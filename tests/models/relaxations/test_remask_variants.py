"""GroundTruthReMask (Table 7 of arXiv 2306.17319) and ReMaskAtTest (Table 5)."""
import pytest
import torch

from remax_mm.models.relaxations import (GroundTruthReMask, ReMask, ReMaskAtTest, ground_truth_gate,
                                         relax_mask_logits)
from remax_mm.structures import MaskPrediction, StageContext
from tests.remask_reference import reference_ground_truth_gate

NUM_CLASSES = 3
HEAD = dict(type='Conv2d', in_channels=4, out_channels=NUM_CLASSES, kernel_size=1)


def _prediction(dtype=torch.float64):
    return MaskPrediction(
        torch.randn(2, 5, NUM_CLASSES + 1, dtype=dtype, requires_grad=True),
        torch.randn(2, 5, 2, 3, dtype=dtype, requires_grad=True), torch.randn(2, 6, 2, 3, dtype=dtype))


def _context():
    """Features of 2x3 pixels, and ground truth with a stride of a third of theirs."""
    return StageContext(
        torch.randn(2, 4, 2, 3, dtype=torch.float64), torch.randn(2, 7, 2, 3, dtype=torch.float64),
        torch.randint(0, NUM_CLASSES + 1, (2, 4, 7)))


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_ground_truth_gate__loops(activation):
    sem_seg, class_logits = _context().sem_seg, _prediction().class_logits.detach()
    torch.testing.assert_close(
        ground_truth_gate(sem_seg, class_logits, activation),
        reference_ground_truth_gate(sem_seg, class_logits, activation))


def test_ground_truth_gate__worked_example():
    # Pixels of class 0, class 1 and void; a slot with zero logits, and one with probability 1 for class 1.
    gate = ground_truth_gate(torch.tensor([[[0, 1, 2]]]), torch.tensor([[[0., 0., 0.], [-99., 99., 0.]]]))
    assert gate.tolist() == [[[[.5, .5, 0.]], [[pytest.approx(0, abs=1e-30), 1., 0.]]]]


def test_ground_truth_remask__equals_remask_with_perfect_semantics():
    sem_seg, prediction = _context().sem_seg[:, ::3, ::3], _prediction()
    perfect = torch.full((2, NUM_CLASSES + 1, 2, 3), -200., dtype=torch.float64)
    perfect = perfect.scatter(1, sem_seg[:, None], 200.)[:, :-1]
    relaxed = relax_mask_logits(prediction.mask_logits, prediction.class_logits, perfect)
    ours = GroundTruthReMask()(prediction, StageContext(None, None, sem_seg))
    torch.testing.assert_close(ours.relaxed_mask_logits, relaxed)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('identity', [True, False])
def test_ground_truth_remask__training(activation, identity):
    prediction, context = _prediction(), _context()
    relaxed = GroundTruthReMask(activation, identity)(prediction, context)
    gate = reference_ground_truth_gate(context.sem_seg[:, ::3, ::3], prediction.class_logits.detach(),
                                       activation)
    expected = prediction.mask_logits * gate + (prediction.mask_logits if identity else 0)
    torch.testing.assert_close(relaxed.relaxed_mask_logits, expected)
    assert relaxed.sem_logits is None  # so that no semantic loss is computed
    assert all(new is old for new, old in zip(relaxed[:3], prediction[:3]))


@pytest.mark.parametrize('detach_class', [True, False])
def test_ground_truth_remask__detach_class(detach_class):
    prediction = _prediction()
    relaxed = GroundTruthReMask(detach_class=detach_class)(prediction, _context())
    relaxed.relaxed_mask_logits.square().sum().backward()
    assert (prediction.class_logits.grad is None) == detach_class
    assert prediction.mask_logits.grad.abs().min() > 0


def test_ground_truth_remask__has_no_parameters_and_changes_nothing_in_eval():
    remask, prediction = GroundTruthReMask().eval(), _prediction()
    assert remask(prediction, StageContext(torch.randn(1))) is prediction
    assert not remask.state_dict()


def test_ground_truth_remask__full_precision_under_mixed_precision():
    prediction, context = _prediction(dtype=torch.float32), _context()
    exact = GroundTruthReMask()(prediction, context).relaxed_mask_logits
    with torch.autocast('cpu', dtype=torch.bfloat16):
        relaxed = GroundTruthReMask()(prediction, context).relaxed_mask_logits
    assert relaxed.dtype == torch.float32 and torch.equal(relaxed, exact)


def test_ground_truth_remask__bad_input():
    with pytest.raises(ValueError, match='semantic ground truth in training.*got none'):
        GroundTruthReMask()(_prediction(), _context()._replace(sem_seg=None))
    with pytest.raises(ValueError, match=r'ground truth of \(5, 5\) and a prediction of \(2, 3\)'):
        GroundTruthReMask()(_prediction(),
                            _context()._replace(sem_seg=torch.zeros(2, 5, 5, dtype=torch.int64)))
    with pytest.raises(ValueError, match="among .*but got 'tanh'"):
        GroundTruthReMask('tanh')


@pytest.mark.parametrize('training', [True, False])
def test_remask_at_test__equals_remask_in_training(training):
    remask = ReMask(HEAD).double()
    at_test = ReMaskAtTest(HEAD).double().train(training)
    at_test.load_state_dict(remask.state_dict())  # the same keys
    prediction, context = _prediction(), _context()
    for ours, theirs in zip(at_test(prediction, context), remask(prediction, context)):
        assert torch.equal(ours, theirs)
