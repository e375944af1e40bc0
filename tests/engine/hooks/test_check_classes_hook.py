"""Checks that the model and the datasets have the same classes."""
from types import SimpleNamespace

import pytest
from mmdet.registry import HOOKS
from torch import nn

from remax_mm.engine.hooks.check_classes_hook import check_class_counts
from remax_mm.models.heads import ASPPSemanticHead, SimpleSemanticHead, StageSemanticHead
from remax_mm.models.losses import MeanEmbeddingDiscriminationLoss

METAINFO = dict(classes=('hen', 'egg', 'lawn'), thing_classes=('hen', 'egg'), stuff_classes=('lawn', ))


def _model(things, stuff):
    model = nn.Sequential(nn.Linear(1, 1), nn.Identity())
    model[1].num_things_classes, model[1].num_stuff_classes = things, stuff
    return model


def _loop(metainfo, **kwargs):
    return SimpleNamespace(dataloader=SimpleNamespace(dataset=SimpleNamespace(metainfo=metainfo, **kwargs)))


def _runner(train=METAINFO, val=METAINFO, model=None):
    loops = dict(train=_loop(train, ann_file='train.json'), val=_loop(val, ann_file='val.json'))
    return SimpleNamespace(
        model=model or _model(2, 1),
        train_dataloader=loops['train'].dataloader,
        val_loop=loops['val'] if val else None,
        val_dataloader=loops['val'].dataloader,
        test_dataloader=_loop(val).dataloader)


@pytest.fixture
def hook():
    return HOOKS.build(dict(type='CheckClassesHook'))


def test_check_class_counts__same_numbers():
    check_class_counts(_model(2, 1), METAINFO, 'a.json')
    check_class_counts(nn.Linear(1, 1), METAINFO, 'a.json')  # a model without numbers of classes


@pytest.mark.parametrize('things, stuff', [(80, 53), (1, 2), (3, 0)])
def test_check_class_counts__other_numbers(things, stuff):
    with pytest.raises(
            ValueError,
            match=f'2 thing and 1 stuff classes of a.json.*`1` has num_things_classes={things} and '
            f'num_stuff_classes={stuff}; set num_things_classes=2'):
        check_class_counts(_model(things, stuff), METAINFO, 'a.json')


def test_check_class_counts__loss_with_a_number_of_things():
    # The loss of MaX-DeepLab, which would otherwise treat some stuff classes as things.
    model = _model(2, 1)
    model.append(MeanEmbeddingDiscriminationLoss(num_things_classes=2))
    check_class_counts(model, METAINFO, 'a.json')
    model[-1].num_things_classes = 80
    with pytest.raises(ValueError, match='`2` has num_things_classes=80; set num_things_classes=2 and'):
        check_class_counts(model, METAINFO, 'a.json')


@pytest.mark.parametrize('build', [
    lambda num_classes: StageSemanticHead(8, num_classes, aspp_channels=8),
    lambda num_classes: SimpleSemanticHead([8], num_classes, channels=8),
    lambda num_classes: ASPPSemanticHead([8] * 4, num_classes, aspp_channels=8, low_level_channels=(8, 8)),
])
def test_check_class_counts__semantic_heads(build):
    check_class_counts(nn.Sequential(build(3)), METAINFO, 'a.json')
    for wrong in (2, 4, 134):
        with pytest.raises(ValueError, match=f'3 classes of a.json, but `0` has {wrong} outputs'):
            check_class_counts(nn.Sequential(build(wrong)), METAINFO, 'a.json')


def test_check_class_counts__semantic_head_with_background_instead_of_stuff():
    things = dict(thing_classes=('hen', 'egg'), stuff_classes=())
    for outputs in (2, 3):
        check_class_counts(nn.Sequential(StageSemanticHead(8, outputs, aspp_channels=8)), things, 'a.json')
    with pytest.raises(ValueError, match='has 4 outputs; set its num_classes=2'):
        check_class_counts(nn.Sequential(StageSemanticHead(8, 4, aspp_channels=8)), things, 'a.json')


def test_hook__same_classes(hook):
    hook.before_train(_runner())
    hook.before_train(_runner(val=None))
    hook.before_val(_runner())
    hook.before_test(_runner())


def test_hook__model_for_other_classes(hook):
    runner = _runner(model=_model(80, 53))
    for step, source in ((hook.before_train, 'train.json'), (hook.before_val, 'val.json'),
                         (hook.before_test, 'SimpleNamespace')):
        with pytest.raises(ValueError, match=f'2 thing and 1 stuff classes of {source}.*=80 and .*=53'):
            step(runner)


@pytest.mark.parametrize('names, message', [
    (('egg', 'hen', 'lawn'),
     "val.json to have the classes of train.json.*label 0 is 'egg' in val.json and 'hen'"),
    (('hen', 'egg', 'sky'), "label 2 is 'sky' in val.json and 'lawn' in train.json"),
])
def test_hook__training_and_validation_differ(hook, names, message):
    other = dict(classes=names, thing_classes=names[:2], stuff_classes=names[2:])
    with pytest.raises(ValueError, match=message):
        hook.before_train(_runner(val=other))


def test_hook__training_and_validation_differ_in_number(hook):
    shorter = dict(classes=('hen', 'egg'), thing_classes=('hen', 'egg'), stuff_classes=())
    with pytest.raises(ValueError, match="label 2 is None in val.json and 'lawn' in train.json"):
        hook.before_train(_runner(val=shorter, model=nn.Linear(1, 1)))


def test_hook__dataset_without_lists_of_things_and_stuff(hook):
    with pytest.raises(
            ValueError, match='metainfo of train.json, but it has no thing_classes, stuff_classes'):
        hook.before_train(_runner(train=dict(classes=('hen', ))))
