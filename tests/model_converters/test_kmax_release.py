"""Names and class orders of the public kMaX-DeepLab checkpoints."""
import json

import pytest
import torch
from mmseg.datasets import ADE20KDataset, CityscapesDataset

from remax_mm.model_converters.kmax_release import (ADE20K, CITYSCAPES, COCO, apply_rules, convert_weights,
                                                    find_dataset, rename)

CLASS_HEAD = 'sem_seg_head.predictor._predcitor._transformer_class_head.conv.bias'
SEMANTIC_HEAD = 'sem_seg_head.predictor._auxiliary_semantic_predictor.'
SEMANTIC_BIAS = f'{SEMANTIC_HEAD}final_conv.conv.bias'
OUR_CLASS_HEAD = 'panoptic_head.transformer_decoder.predictor.class_head.conv.bias'
OUR_SEMANTIC_HEAD = 'panoptic_head.semantic_head.'
OUR_SEMANTIC_BIAS = f'{OUR_SEMANTIC_HEAD}classifier.conv.bias'


@pytest.mark.parametrize(
    'name', ['r50_coco', 'r50_ade20k', 'convnext_tiny_coco', 'r50_cityscapes', 'convnext_large_cityscapes'])
def test_rename__all_names_are_known_and_stay_distinct(release, name):
    weights = release(name)
    names = {rename(key) for key in weights}
    assert len(names) == len(weights)
    assert not [key for key in names if '._' in key or key.startswith('sem_seg_head')]


@pytest.mark.parametrize(
    'theirs,ours',
    [
        (('0.conv.weight', '1.norm.bias', '2.conv.bias'),
         ('head.0.conv.weight', 'head.1.norm.bias', 'classifier.conv.bias')),
        # Names of convert-tf-weights-to-d2.py for TensorFlow weights.
        (('conv_block_0.conv.weight', 'conv_block_1.norm.bias', 'final_conv.conv.bias'),
         ('head.0.conv.weight', 'head.1.norm.bias', 'classifier.conv.bias')),
    ])
def test_rename__semantic_head_of_cityscapes(theirs, ours):
    assert [rename(SEMANTIC_HEAD + name) for name in theirs] == [OUR_SEMANTIC_HEAD + name for name in ours]


def test_coco__is_the_order_of_the_panoptic_annotations(coco_sample):
    # The release numbers Detectron2's COCO_CATEGORIES, which are the official ones in the order of ids.
    annotations = coco_sample / 'annotations'
    categories = json.loads((annotations / 'panoptic_coco_categories.json').read_text())
    categories.sort(key=lambda category: category['id'])
    assert [category['name'] for category in categories] == list(COCO.classes)
    assert COCO.classes == COCO.metainfo['classes']


def test_ade20k__is_the_order_of_the_challenge():
    # mmseg lists the same classes, some with another spelling.
    spelling = {
        'window': 'windowpane', 'tub': 'bathtub', 'rail': 'railing', 'street lamp': 'streetlight',
        'tv': 'television receiver', 'clothes': 'apparel', 'pool': 'swimming pool', 'falls': 'waterfall',
        'trash can': 'ashcan'
    }  # yapf: disable
    first = [name.split(', ')[0] for name in ADE20K.classes]
    expected = [name.strip() for name in ADE20KDataset.METAINFO['classes']]
    assert [spelling.get(name, name) for name in first] == expected
    assert set(ADE20K.classes) == set(ADE20K.metainfo['classes'])


def test_cityscapes__is_the_order_of_the_train_ids():
    assert CITYSCAPES.classes == CityscapesDataset.METAINFO['classes']
    assert set(CITYSCAPES.classes) == set(CITYSCAPES.metainfo['classes'])


def test_apply_rules__one_after_the_other():
    rules = ((r'^a', 'b'), (r'^b(\d)', lambda match: f'c{int(match[1]) + 1}'))
    assert [apply_rules(rules, name) for name in ('a1', 'b3', 'x1')] == ['c2', 'c4', 'x1']


def test_find_dataset__by_the_number_of_outputs():
    assert [find_dataset(outputs) for outputs in (134, 151, 20)] == [COCO, ADE20K, CITYSCAPES]
    with pytest.raises(
            ValueError, match=r'134 \(COCO\), 151 \(ADE20K\), 20 \(Cityscapes\) outputs, .* found 8$'):
        find_dataset(8)


@pytest.mark.parametrize('from_tensorflow', [False, True])
@pytest.mark.parametrize('semantic_name', ['2.conv.bias', 'final_conv.conv.bias'])
def test_convert_weights__cityscapes_classes_by_name(from_tensorflow, semantic_name):
    # Row i of both heads is train id i; the semantic head has no void.
    weights = {CLASS_HEAD: torch.arange(20.), SEMANTIC_HEAD + semantic_name: torch.arange(19.)}
    if not from_tensorflow:
        weights['backbone.stem.conv1.norm.num_batches_tracked'] = torch.tensor(1)
    converted, dataset = convert_weights(weights)
    assert dataset is CITYSCAPES

    # person to bicycle, road to sky, void
    expected = [*range(11, 19), *range(11), 19]
    assert converted[OUR_CLASS_HEAD].tolist() == expected
    assert converted[OUR_SEMANTIC_BIAS].tolist() == expected[:-1]
    for name, ours, theirs in [('person', 0, 11), ('motorcycle', 6, 17), ('road', 8, 0), ('sky', 18, 10)]:
        assert dataset.metainfo['classes'][ours] == name and expected[ours] == theirs


@pytest.mark.parametrize('from_tensorflow', [False, True])
def test_convert_weights__ade20k_classes_by_name(from_tensorflow):
    # Row i of the class head is class i of the challenge; the semantic head of TensorFlow has void first.
    numbers = torch.arange(151.)
    weights = {CLASS_HEAD: numbers, SEMANTIC_BIAS: numbers - 1 if from_tensorflow else numbers}
    if not from_tensorflow:
        weights['backbone.stem.conv1.norm.num_batches_tracked'] = torch.tensor(1)
    converted, dataset = convert_weights(weights)
    assert dataset is ADE20K

    class_row, semantic_row = converted[OUR_CLASS_HEAD].tolist(), converted[OUR_SEMANTIC_BIAS].tolist()
    assert sorted(class_row) == list(range(151)) and class_row[150] == 150
    assert semantic_row == class_row[:150]
    # Our order has things first; taken by hand from the list of the challenge.
    for name, ours, theirs in [('bed', 0, 7), ('window', 1, 8), ('flag', 99, 149), ('wall', 100, 0),
                               ('sky', 102, 2), ('crt screen', 148, 141), ('shower', 149, 145)]:
        assert dataset.metainfo['classes'][ours] == name and class_row[ours] == theirs


@pytest.mark.parametrize('from_tensorflow', [False, True])
def test_convert_weights__coco_classes_stay(from_tensorflow):
    numbers = torch.arange(134.)
    weights = {CLASS_HEAD: numbers, SEMANTIC_BIAS: numbers}
    if not from_tensorflow:
        weights['backbone.stem.conv1.norm.num_batches_tracked'] = torch.tensor(1)
    converted, dataset = convert_weights(weights)
    assert dataset is COCO
    assert converted[OUR_CLASS_HEAD].tolist() == list(range(134))
    first = int(from_tensorflow)
    assert converted[OUR_SEMANTIC_BIAS].tolist() == list(range(first, first + 133))
