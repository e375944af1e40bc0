"""Converter, dataset, pipeline and metric together, on the original files of each dataset, pixel by pixel."""
from typing import Dict, NamedTuple

import numpy as np
import pytest
import torch
from mmdet.registry import DATASETS
from mmengine.registry import DefaultScope

from remax_mm.datasets import PanopticMapDataset
from remax_mm.datasets.checks import check_dataset
from remax_mm.evaluation import PanopticQualityMetric, mean_quality
from remax_mm.evaluation.panoptic_pairs import count_pair
from remax_mm.panoptic_format import read_panoptic_files
from tests.datasets.original_layouts import (CONTENTS, USER_VOID, Drawn, run_converter, write_ade20k,
                                             write_cityscapes, write_user_masks)

PIPELINE = [dict(type=step) for step in ('LoadImageFromFile', 'LoadPanopticMap', 'PackPanopticInputs')]


def _cityscapes(folder, split, train_ids=False):
    truth = write_cityscapes(folder)
    run_converter('cityscapes_panoptic', folder, *['--use-train-id'] * train_ids)
    stem = f'gtFine/cityscapes_panoptic_{split}' + '_trainId' * train_ids
    return truth[split], dict(
        type='CityscapesPanopticMapDataset',
        ann_file=f'{stem}.json',
        data_prefix=dict(img=f'leftImg8bit/{split}/', seg=stem))


def _ade20k(folder, split):
    truth = write_ade20k(folder)
    run_converter('ade20k_panoptic', folder)
    part = dict(train='training', val='validation')[split]
    return truth[split], dict(
        type='ADE20KPanopticMapDataset',
        ann_file=f'ade20k_panoptic_{split}.json',
        data_prefix=dict(img=f'images/{part}/', seg=f'ade20k_panoptic_{split}/'))


def _user(folder, split, source='--instances'):
    truth = write_user_masks(folder)
    instances = folder / ('instances' if source == '--instances' else '') / (
        split if source == '--instances' else f'instances_{split}.json')
    run_converter('masks_to_panoptic', '--images', folder / 'images' / split, '--semantic',
                  folder / 'semantic' / split, source, instances, '--classes', folder / 'classes.json',
                  '--void', USER_VOID, '--out', folder / f'panoptic_{split}.json')
    return truth[split], dict(
        type='PanopticMapDataset',
        ann_file=f'panoptic_{split}.json',
        data_prefix=dict(img=f'images/{split}/', seg=f'panoptic_{split}/'))


class Layout(NamedTuple):
    """The segments of each image, by image id (by file name if ids are numbers), and the dataset."""
    truth: Dict[str, Drawn]
    data: PanopticMapDataset


LAYOUTS = dict(
    cityscapes=_cityscapes,
    cityscapes_train_ids=lambda folder, split: _cityscapes(folder, split, train_ids=True),
    ade20k=_ade20k,
    user=_user,
    user_json=lambda folder, split: _user(folder, split, '--instances-json'))


@pytest.fixture(
    scope='module', params=[(name, split) for name in LAYOUTS for split in ('train', 'val')], ids='-'.join)
def layout(request, tmp_path_factory):
    name, split = request.param
    folder = tmp_path_factory.mktemp(name)
    truth, config = LAYOUTS[name](folder, split)
    config.update(data_root=str(folder), pipeline=PIPELINE, test_mode=split == 'val')
    with DefaultScope.overwrite_default_scope('mmdet'):
        data = DATASETS.build(config)
    return Layout(truth, data)


def _name(sample, truth):
    return sample.img_id if sample.img_id in truth else sample.img_path.rsplit('/', 1)[1]


def test_layout__ground_truth_equals_the_drawn_segments(layout):
    truth, data = layout
    classes, things = data.metainfo['classes'], data.metainfo['thing_classes']
    assert list(classes) == [*things, *data.metainfo['stuff_classes']]  # things first
    assert len(data) == len(truth) == len(CONTENTS)
    seen = set()
    for packed in data:
        sample = packed['data_samples']
        drawn = truth[_name(sample, truth)]
        seen.add(_name(sample, truth))
        index = sample.gt_panoptic_seg.segment_map[0].numpy()
        assert index.shape == tuple(packed['inputs'].shape[1:]) == drawn.size
        expected_void = np.ones(drawn.size, bool)
        rows = set()
        for segment in drawn.segments:
            if segment.iscrowd:
                continue
            expected_void &= ~segment.mask
            row, = np.unique(index[segment.mask])
            rows.add(int(row))
            assert np.array_equal(index == row, segment.mask)
            assert classes[sample.gt_segments.labels[row - 1]] == segment.name
            assert bool(sample.gt_segments.is_thing[row - 1]) == (segment.name in things)
        assert rows == set(range(1, len(sample.gt_segments) + 1))
        assert np.array_equal(index == 0, expected_void)  # unlabeled or crowd
        crowd = [info for info in sample.segments_info if info['iscrowd']]
        assert len(crowd) == sum(segment.iscrowd for segment in drawn.segments)
    assert seen == set(truth)


def _perfect(sample, num_classes):
    """The ground truth as a predicted map: label + 1000 * instance, void K."""
    index = sample.gt_panoptic_seg.segment_map.long()
    labels, is_thing = sample.gt_segments.labels, sample.gt_segments.is_thing
    values = labels + 1000 * is_thing * torch.arange(1, len(labels) + 1)
    return torch.cat([torch.tensor([num_classes]), values])[index]


def _process(metric, sample):
    prediction = dict(sem_seg=_perfect(sample, len(metric.dataset_meta['classes'])))
    metric.process(None, [dict(sample.metainfo, pred_panoptic_seg=prediction)])


@pytest.mark.parametrize('contents', [CONTENTS, *((content, ) for content in CONTENTS)])
def test_layout__ground_truth_as_prediction_scores_100(layout, contents):
    truth, data = layout
    images = [
        name for name, content in zip(sorted(truth, key=list(truth).index), CONTENTS) if content in contents
    ]
    metric = PanopticQualityMetric()
    metric.dataset_meta = data.metainfo
    samples = [packed['data_samples'] for packed in data]
    samples = [sample for sample in samples if _name(sample, truth) in images]
    for sample in samples:
        _process(metric, sample)
    scores = metric.evaluate(len(samples))
    present = {segment.name for name in images for segment in truth[name].segments if not segment.iscrowd}
    kinds = [
        suffix for suffix, classes in (('', 'classes'), ('_th', 'thing_classes'), ('_st', 'stuff_classes'))
        if present & set(data.metainfo[classes])
    ]
    assert scores == {f'coco_panoptic/{key}{kind}': 100 for key in ('PQ', 'SQ', 'RQ') for kind in kinds}


def test_layout__checker_finds_no_error(layout):
    report = check_dataset(layout.data)
    assert not report.has_errors, report.findings


def test_layout__exported_predictions_score_100(layout, tmp_path):
    """Evaluation of exported files, with string image ids and the category ids of the annotations."""
    metric = PanopticQualityMetric(
        format_only=True, outfile_prefix=str(tmp_path / 'val'), ann_file=layout.data.ann_file)
    metric.dataset_meta = layout.data.metainfo
    for packed in layout.data:
        _process(metric, packed['data_samples'])
    metric.evaluate(len(layout.data))
    files = read_panoptic_files(layout.data.ann_file, tmp_path / 'val.json')
    counts = sum(count_pair(pair, num_classes=len(files.classes)) for pair in files.pairs)
    assert mean_quality(counts, files.is_thing)['PQ'] == 100
