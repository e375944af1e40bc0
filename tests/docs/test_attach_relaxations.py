"""The code of docs/attach_relaxations.md does what the page says."""
import re

import pytest
import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import DefaultScope

from tests.conftest import REPOSITORY
from tests.mask_former_config import detector_config, drawn_batch

PAGE = (REPOSITORY / 'docs' / 'attach_relaxations.md').read_text()
BLOCKS = re.findall(r'```python\n(.*?)```', PAGE, re.DOTALL)


@pytest.fixture(scope='module')
def page() -> dict:
    """The variables of the page after its blocks have run in their order."""
    torch.manual_seed(0)
    names: dict = {}
    for block in BLOCKS:
        exec(block, names)
    yield names
    MODELS.module_dict.pop('MyRelaxedHead')


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def test_page__has_its_blocks():
    assert len(BLOCKS) == 5
    assert all(line.isascii() and len(line) <= 120 for block in BLOCKS for line in block.splitlines())


def test_page__remask(page):
    gate = page['relaxed_mask_logits'] / page['mask_logits']
    assert (gate > 1).all()
    masks = page['relaxed_mask_logits'].square().mean()
    inputs = [page['class_logits'], *page['semantic_head'].parameters()]
    gradients = torch.autograd.grad(masks, inputs, retain_graph=True, allow_unused=True)
    assert all(gradient is None for gradient in gradients)
    gradients = torch.autograd.grad(page['loss_sem'], [*inputs[1:], page['pixel_feature']], retain_graph=True)
    assert all(gradient.isfinite().all() for gradient in gradients) and gradients[-1].abs().sum() > 0


def test_page__reclass(page):
    targets, labels, num_classes = page['class_targets'], page['labels'], page['K']
    assert (labels == num_classes).any() and (labels < num_classes).any()
    unmatched = targets[labels == num_classes]
    assert (unmatched[:, :-1] == 0).all() and (unmatched[:, -1] == 1).all()
    matched = targets[labels < num_classes]
    assert (matched.max(-1).values == 1).all() and (matched[:, -1] == 0).all()
    others = matched[matched < 1]
    assert (others > 0).any() and (others <= 0.1).all()
    page['loss_cls'].backward()
    assert page['class_logits'].grad.abs().sum() > 0


def test_page__config(page):
    config = Config.fromfile(REPOSITORY / 'configs/mini/mask2former_r18_1xb8-600_mini-129.py')
    config.merge_from_dict(dict(model=page['model']))
    head = MODELS.build(config.model).panoptic_head
    assert type(head).__name__ == 'ReMaXMask2FormerHead' and head.num_relaxed == 2
    assert type(head.loss_cls).__name__ == 'SoftTargetCrossEntropyLoss' and head.class_weight[-1] == 0.1


def test_page__own_head(page):
    config = detector_config('MaskFormer', relaxed=True)
    config.panoptic_head.type = 'MyRelaxedHead'
    model = MODELS.build(config).train()
    assert isinstance(model.panoptic_head, page['MyHead'])
    losses = model(**model.data_preprocessor(drawn_batch(), training=True), mode='loss')
    assert 'loss_sem' in losses and all(torch.isfinite(loss) for loss in losses.values())
