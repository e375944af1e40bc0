"""The equations of ReMask, with gradients and options, and the module."""
import pytest
import torch
from mmdet.registry import MODELS

from remax_mm.models.relaxations import ReMask, relax_mask_logits, semantic_gate
from remax_mm.structures import MaskPrediction, StageContext
from tests.remask_reference import reference_gate

HEAD = dict(type='Conv2d', in_channels=4, out_channels=3, kernel_size=1)

# An example computed by hand: three pixels in one row, three slots, two classes and void.
MASK_LOGITS = [[2, 0, -1], [1, 1, 0], [-1, 2, 0]]  # by pixel
CLASS_LOGITS = [[2, 0, 0], [0, 1, 0], [0, 0, 1]]  # by slot
SEM_LOGITS = [[1, -2], [0, 0], [-3, 4]]  # by pixel
SIGMOID_GATE = [[.703516, .452674, .425131], [.690399, .615529, .500000], [.532779, .741623, .514720]]
SIGMOID_RELAXED = [[3.407031, 0, -1.425131], [1.690399, 1.615529, 0], [-1.532779, 3.483245, 0]]
SOFTMAX_GATE = [[.754714, .229213, .211942], [.446747, .394029, .211942], [.107127, .575785, .211942]]
SOFTMAX_RELAXED_FIRST_PIXEL = [3.509427, 0, -1.211942]
DIGITS = dict(atol=5.1e-7, rtol=0)


def _maps(by_pixel):
    """Rows of values by pixel to (1, C, 1, pixels)."""
    return torch.tensor(by_pixel, dtype=torch.float64).t()[None, :, None]


def _hand_case():
    return _maps(MASK_LOGITS), torch.tensor([CLASS_LOGITS], dtype=torch.float64), _maps(SEM_LOGITS)


def _random_case(dtype=torch.float64):
    """Mask, class and semantic logits of 2 images, 5 slots, 3 classes, 2x3 pixels."""
    return [
        torch.randn(*shape, dtype=dtype, requires_grad=True)
        for shape in ((2, 5, 2, 3), (2, 5, 4), (2, 3, 2, 3))
    ]


def _prediction(requires_grad=False):
    return MaskPrediction(
        torch.randn(2, 5, 4, requires_grad=requires_grad),
        torch.randn(2, 5, 2, 3, requires_grad=requires_grad), torch.randn(2, 4, 2, 3))


def test_semantic_gate__worked_example():
    _, class_logits, sem_logits = _hand_case()
    torch.testing.assert_close(semantic_gate(sem_logits, class_logits), _maps(SIGMOID_GATE), **DIGITS)
    torch.testing.assert_close(
        semantic_gate(sem_logits, class_logits, 'softmax'), _maps(SOFTMAX_GATE), **DIGITS)


def test_relax_mask_logits__worked_example():
    relaxed = relax_mask_logits(*_hand_case())
    torch.testing.assert_close(relaxed, _maps(SIGMOID_RELAXED), **DIGITS)
    relaxed = relax_mask_logits(*_hand_case(), activation='softmax')
    torch.testing.assert_close(relaxed[..., :1], _maps([SOFTMAX_RELAXED_FIRST_PIXEL]), **DIGITS)


def test_relax_mask_logits__loops():
    mask_logits, class_logits, sem_logits = (part.detach() for part in _random_case())
    gate = reference_gate(sem_logits, class_logits)
    torch.testing.assert_close(semantic_gate(sem_logits, class_logits), gate)
    torch.testing.assert_close(
        relax_mask_logits(mask_logits, class_logits, sem_logits), mask_logits + gate * mask_logits)
    torch.testing.assert_close(
        relax_mask_logits(mask_logits, class_logits, sem_logits, identity=False), gate * mask_logits)


def test_semantic_gate__ranges():
    _, class_logits, sem_logits = (5 * part.detach() for part in _random_case())
    sigmoid, softmax = (semantic_gate(sem_logits, class_logits, name) for name in ('sigmoid', 'softmax'))
    assert 0 <= sigmoid.min() and 1 < sigmoid.max() <= 3
    assert 0 <= softmax.min() and softmax.max() <= 1


def test_semantic_gate__columns_beyond_the_classes():
    _, class_logits, sem_logits = (part.detach() for part in _random_case())
    num_classes = class_logits.shape[-1] - 1
    background = torch.randn_like(sem_logits[:, :1])
    more = torch.cat([sem_logits, background], dim=1)
    torch.testing.assert_close(semantic_gate(more, class_logits), semantic_gate(sem_logits, class_logits))
    # A softmax includes the background, whose column is then removed.
    share = sem_logits.exp() / (sem_logits.exp().sum(1, keepdim=True) + background.exp())
    classes = class_logits.softmax(-1)[..., :-1]
    torch.testing.assert_close(
        semantic_gate(more, class_logits, 'softmax'), torch.einsum('bnk,bkhw->bnhw', classes, share))
    with pytest.raises(ValueError, match=f'at least {num_classes} classes, but got {num_classes - 1}'):
        semantic_gate(sem_logits[:, 1:], class_logits)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
def test_relax_mask_logits__keeps_signs_and_zero(activation):
    mask_logits, class_logits, sem_logits = (part.detach() for part in _random_case())
    mask_logits[0, 0] = 0
    relaxed = relax_mask_logits(mask_logits, class_logits, sem_logits, activation=activation)
    assert (relaxed.sign() == mask_logits.sign()).all()
    assert (relaxed.abs() >= mask_logits.abs()).all()


def test_relax_mask_logits__ignores_the_void_column_with_sigmoids():
    mask_logits, class_logits, sem_logits = (part.detach() for part in _random_case())
    relaxed = relax_mask_logits(mask_logits, class_logits, sem_logits)
    class_logits[..., -1] += 7
    assert torch.equal(relax_mask_logits(mask_logits, class_logits, sem_logits), relaxed)


def test_relax_mask_logits__moves_a_pixel_to_the_slot_of_its_class():
    # One pixel of class 1. Without the semantics, slot 0 (class 0) has the larger logit.
    mask_logits = torch.tensor([1.1, 1.0]).view(1, 2, 1, 1)
    class_logits = torch.tensor([[[9., -9., 0.], [-9., 9., 0.]]])
    sem_logits = torch.tensor([-9., 9.]).view(1, 2, 1, 1)
    relaxed = relax_mask_logits(mask_logits, class_logits, sem_logits)
    assert mask_logits.argmax(1).item() == 0 and relaxed.argmax(1).item() == 1


def test_relax_mask_logits__permuting_slots_and_classes():
    mask_logits, class_logits, sem_logits = (part.detach() for part in _random_case())
    relaxed = relax_mask_logits(mask_logits, class_logits, sem_logits)
    slots, classes = torch.randperm(5), torch.randperm(3)
    permuted = relax_mask_logits(mask_logits[:, slots], class_logits[:, slots], sem_logits)
    torch.testing.assert_close(permuted, relaxed[:, slots])
    permuted = relax_mask_logits(mask_logits, class_logits[..., [*classes.tolist(), 3]], sem_logits[:,
                                                                                                    classes])
    torch.testing.assert_close(permuted, relaxed)


@pytest.mark.parametrize('activation', ['sigmoid', 'softmax'])
@pytest.mark.parametrize('identity', [True, False])
def test_relax_mask_logits__gradients(activation, identity):

    def relax(*logits):
        return relax_mask_logits(
            *logits, activation=activation, identity=identity, stop_gradient=False, detach_class=False)

    shapes = ((1, 2, 1, 2), (1, 2, 3), (1, 2, 1, 2))
    logits = [torch.randn(*shape, dtype=torch.float64, requires_grad=True) for shape in shapes]
    assert torch.autograd.gradcheck(relax, logits)


@pytest.mark.parametrize('stop_gradient', [True, False])
@pytest.mark.parametrize('detach_class', [True, False])
def test_relax_mask_logits__options_that_stop_gradients(stop_gradient, detach_class):
    mask_logits, class_logits, sem_logits = _random_case()
    relaxed = relax_mask_logits(
        mask_logits, class_logits, sem_logits, stop_gradient=stop_gradient, detach_class=detach_class)
    relaxed.square().sum().backward()
    assert (sem_logits.grad is None) == stop_gradient
    assert (class_logits.grad is None) == detach_class

    # The masks always get a gradient, with the factor 1 + gate.
    gate = semantic_gate(sem_logits, class_logits)
    torch.testing.assert_close(mask_logits.grad, 2 * mask_logits * (1 + gate)**2)


def test_relax_mask_logits__full_precision_under_mixed_precision():
    logits = [part.detach() for part in _random_case(torch.float32)]
    exact = relax_mask_logits(*logits)
    with torch.autocast('cpu', dtype=torch.bfloat16):
        relaxed = relax_mask_logits(*logits)
        from_half = relax_mask_logits(*(part.bfloat16() for part in logits))
    assert relaxed.dtype == from_half.dtype == torch.float32
    torch.testing.assert_close(relaxed, exact)


def test_remask__changes_nothing_in_eval():
    remask = ReMask(HEAD).eval()
    prediction = _prediction()
    assert remask(prediction, StageContext(torch.randn(2, 4, 2, 3))) is prediction


def test_remask__training():
    remask = ReMask(HEAD)
    prediction, feature = _prediction(), torch.randn(2, 4, 2, 3)
    relaxed = remask(prediction, StageContext(feature))

    sem_logits = remask.semantic_head(feature).detach()
    torch.testing.assert_close(relaxed.sem_logits.detach(), sem_logits)
    expected = prediction.mask_logits * (
        1 + reference_gate(sem_logits.double(), prediction.class_logits.double()))
    torch.testing.assert_close(relaxed.relaxed_mask_logits.detach(), expected.float())
    assert relaxed.supervised_mask_logits is relaxed.relaxed_mask_logits
    assert all(new is old for new, old in zip(relaxed[:3], prediction[:3]))


def test_remask__relaxed_masks_give_the_semantic_head_no_gradient():
    remask = ReMask(HEAD)
    prediction, feature = _prediction(requires_grad=True), torch.randn(2, 4, 2, 3, requires_grad=True)
    relaxed = remask(prediction, StageContext(feature))
    relaxed.relaxed_mask_logits.square().sum().backward(retain_graph=True)
    assert all(parameter.grad is None for parameter in remask.parameters())
    assert feature.grad is None and prediction.class_logits.grad is None
    assert prediction.mask_logits.grad.abs().min() > 0

    # The semantic logits do, and also give one to the pixel feature.
    relaxed.sem_logits.square().sum().backward()
    assert all(parameter.grad is not None for parameter in remask.parameters()) and feature.grad is not None


def test_remask__options_reach_the_equation():
    remask = ReMask(HEAD, activation='softmax', identity=False, stop_gradient=False, detach_class=False)
    prediction, feature = _prediction(requires_grad=True), torch.randn(2, 4, 2, 3)
    relaxed = remask(prediction, StageContext(feature))
    gate = semantic_gate(relaxed.sem_logits, prediction.class_logits, 'softmax')
    torch.testing.assert_close(relaxed.relaxed_mask_logits, gate * prediction.mask_logits)
    relaxed.relaxed_mask_logits.sum().backward()
    assert prediction.class_logits.grad is not None
    assert all(parameter.grad is not None for parameter in remask.parameters())


@pytest.mark.parametrize('source, channels', [('pixel_space', 5), ('pixel_decoder', 7), ('embedding', 4)])
def test_remask__source(source, channels):
    remask = ReMask(dict(HEAD, in_channels=channels), source=source)
    prediction, context = _prediction(), StageContext(torch.randn(2, 5, 2, 3), torch.randn(2, 7, 2, 3))
    feature = dict(
        pixel_space=context.pixel_space,
        pixel_decoder=context.pixel_decoder,
        embedding=prediction.pixel_feature)[source]
    assert torch.equal(remask(prediction, context).sem_logits, remask.semantic_head(feature))


def test_remask__bad_source():
    with pytest.raises(ValueError, match="source of ReMask among .*but got 'backbone'"):
        ReMask(HEAD, source='backbone')
    with pytest.raises(ValueError, match="to hold 'pixel_decoder', but got None"):
        ReMask(HEAD, source='pixel_decoder')(_prediction(), StageContext(torch.randn(1)))


def test_remask__unknown_activation():
    with pytest.raises(ValueError, match=r"among \('sigmoid', 'softmax'\), but got 'tanh'"):
        ReMask(HEAD, activation='tanh')


def test_remask__is_registered():
    assert isinstance(MODELS.build(dict(type='ReMask', semantic_head=HEAD)), ReMask)
