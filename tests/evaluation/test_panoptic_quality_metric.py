import json
import os
import socket
from pathlib import Path

import mmcv
import numpy as np
import pytest
import torch
import torch.multiprocessing as multiprocessing
from mmdet.registry import METRICS
from mmdet.structures import DetDataSample
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData

from remax_mm.evaluation import PanopticQualityMetric
from remax_mm.panoptic_format import PanopticAnnotation, read_segment_ids, write_segment_ids

META = dict(classes=('cat', 'dog', 'sky'), thing_classes=('cat', 'dog'), stuff_classes=('sky', ))
VOID = 3


def _sample(folder, name, prediction, ground_truth, segments):
    path = str(folder / f'{name}.png')
    write_segment_ids(path, np.array(ground_truth))
    infos = [dict(id=i, category=c, is_thing=c < 2 and not crowd, iscrowd=crowd) for i, c, crowd in segments]
    sample = DetDataSample(
        metainfo=dict(img_id=name, img_path=f'images/{name}.jpg', seg_map_path=path, segments_info=infos))
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.tensor([prediction], dtype=torch.int32))
    return sample


def _two_samples(folder):
    # cat: IoU 3/4, and a false negative; dog: a false positive on a crowd of cats; sky: IoU 1 and 2/3.
    return [
        _sample(folder, 'a', [[1000] * 3 + [VOID] + [2] * 2], [[9] * 4 + [5] * 2], [(9, 0, False),
                                                                                    (5, 2, False)]),
        _sample(folder, 'b', [[2001, 2001, 2, 2, VOID, VOID]], [[4, 4, 7, 7, 7, 8]], [(4, 0, True),
                                                                                      (7, 2, False),
                                                                                      (8, 0, False)]),
    ]


def _metric(**kwargs):
    metric = METRICS.build(dict(type='PanopticQualityMetric', **kwargs))
    metric.dataset_meta = META
    return metric


def _evaluate(metric, samples):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = META
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def _categories(folder):
    path = folder / 'annotations.json'
    names = {13: 'sky', 4: 'dog', 90: 'cat'}
    path.write_text(json.dumps(dict(categories=[dict(id=i, name=n) for i, n in names.items()])))
    return str(path)


def test_evaluate__hand_worked(tmp_path):
    metrics = _evaluate(_metric(classwise=True), _two_samples(tmp_path))
    cat, dog, sky = 0.75 / 1.5, 0, (1 + 2 / 3) / 2
    assert metrics['coco_panoptic/PQ/cat'] == pytest.approx(100 * cat)
    assert metrics['coco_panoptic/SQ/cat'] == pytest.approx(75)
    assert metrics['coco_panoptic/RQ/cat'] == pytest.approx(100 * 2 / 3)
    assert metrics['coco_panoptic/PQ/dog'] == dog
    assert metrics['coco_panoptic/PQ/sky'] == pytest.approx(100 * sky)
    assert metrics['coco_panoptic/PQ'] == pytest.approx(100 * (cat + dog + sky) / 3)
    assert metrics['coco_panoptic/PQ_th'] == pytest.approx(100 * (cat + dog) / 2)
    assert metrics['coco_panoptic/PQ_st'] == pytest.approx(100 * sky)
    assert all(isinstance(value, float) for value in metrics.values())


def test_evaluate__classwise_values_are_off_by_default(tmp_path):
    metrics = _evaluate(_metric(), _two_samples(tmp_path))
    assert sorted(key.split('/')[1] for key in metrics) == sorted(f'{name}{suffix}'
                                                                  for name in ('PQ', 'SQ', 'RQ')
                                                                  for suffix in ('', '_th', '_st'))


def test_process__crowd_of_mmdets_own_dataset(tmp_path):
    samples = _two_samples(tmp_path)
    for sample in samples:
        for info in sample.segments_info:
            del info['iscrowd']
    other = tmp_path / 'other'
    assert _evaluate(_metric(), samples) == _evaluate(_metric(), _two_samples(other))


def test_process__one_small_result_per_image(tmp_path):
    metric = _metric()
    metric.process(None, [sample.to_dict() for sample in _two_samples(tmp_path)])
    assert len(metric.results) == 2
    assert all(value.size <= 12 for result in metric.results for value in result.values())


def test_evaluate__image_without_segments(tmp_path):
    sample = _sample(tmp_path, 'empty', [[VOID, VOID]], [[0, 0]], [])
    assert _evaluate(_metric(), [sample]) == {}
    assert _evaluate(_metric(),
                     [sample, *_two_samples(tmp_path)]) == _evaluate(_metric(), _two_samples(tmp_path))


def _replace_png(sample):
    """The same sample with the annotation of a test pipeline and without the PNG."""
    segments = sample.segments_info
    sample.gt_annotation = PanopticAnnotation(
        torch.from_numpy(read_segment_ids(sample.seg_map_path)), segments)
    Path(sample.seg_map_path).unlink()
    del sample.seg_map_path, sample.segments_info
    return sample


def test_evaluate__annotation_of_a_test_pipeline(tmp_path):
    expected = _evaluate(_metric(), _two_samples(tmp_path))
    assert _evaluate(_metric(), [_replace_png(sample) for sample in _two_samples(tmp_path)]) == expected


def test_process__errors_name_the_files(tmp_path):
    sample = _two_samples(tmp_path)[0].to_dict()
    small = dict(sample, pred_panoptic_seg=dict(sem_seg=torch.zeros(1, 2, 2)))
    with pytest.raises(ValueError, match=r'images/a.jpg.*a.png.*\(1, 6\)'):
        _metric().process(None, [small])
    with pytest.raises(ValueError, match=r'images/a.jpg.*a.png.*\[9\]'):
        _metric().process(None, [dict(sample, segments_info=sample['segments_info'][1:])])
    with pytest.raises(FileNotFoundError, match='nowhere.png'):
        _metric().process(None, [dict(sample, seg_map_path='nowhere.png')])
    with pytest.raises(ValueError, match='images/a.jpg.*LoadSegmentIds.*seg_map_path'):
        _metric().process(None, [{key: value for key, value in sample.items() if key != 'seg_map_path'}])


@pytest.mark.parametrize('format_only', [False, True])
def test_export__submission_in_coco_format(tmp_path, format_only):
    samples = _two_samples(tmp_path)
    if format_only:
        for sample in samples:
            del sample.seg_map_path, sample.segments_info
    prefix = str(tmp_path / 'out' / 'test')
    metric = _metric(outfile_prefix=prefix, ann_file=_categories(tmp_path), format_only=format_only)
    metrics = _evaluate(metric, samples)
    assert ('coco_panoptic/PQ' in metrics) != format_only

    annotations = json.load(open(f'{prefix}.json'))['annotations']
    assert [annotation['image_id'] for annotation in annotations] == ['a', 'b']
    assert [annotation['file_name'] for annotation in annotations] == ['a.png', 'b.png']
    assert [[(s['id'], s['category_id'], s['area']) for s in annotation['segments_info']]
            for annotation in annotations] == [[(1, 13, 2), (2, 90, 3)], [(1, 13, 2), (2, 4, 2)]]
    assert read_segment_ids(f'{prefix}/b.png').tolist() == [[2, 2, 1, 1, 0, 0]]
    assert mmcv.imread(f'{prefix}/b.png').shape == (1, 6, 3)


def test_export__bad_input(tmp_path):
    with pytest.raises(ValueError, match='outfile_prefix'):
        PanopticQualityMetric(format_only=True)
    with pytest.raises(ValueError, match='ann_file'):
        PanopticQualityMetric(outfile_prefix='a')
    with pytest.raises(TypeError):
        PanopticQualityMetric(class_wise=True)

    metric = _metric(outfile_prefix=str(tmp_path / 'x'), ann_file=_categories(tmp_path))
    sample = _two_samples(tmp_path)[0]
    with pytest.raises(ValueError, match='unique names'):
        _evaluate(metric, [sample, sample])
    metric = _metric(outfile_prefix=str(tmp_path / 'x'), ann_file=_categories(tmp_path))
    metric.process(None, [sample.to_dict()])
    metric.dataset_meta = dict(META, classes=('cat', 'dog', 'sea'))
    with pytest.raises(ValueError, match=r"annotations.json.*\['sea'\]"):
        metric.evaluate(1)


def _evaluate_rank(rank, folder, port):
    os.environ.update(RANK=str(rank), WORLD_SIZE='2', MASTER_ADDR='127.0.0.1', MASTER_PORT=str(port))
    torch.distributed.init_process_group('gloo')
    samples = torch.load(folder / 'samples.pth', weights_only=False)
    metric = PanopticQualityMetric(classwise=True)
    metric.dataset_meta = META
    # Three images on two ranks: the sampler repeats the first one.
    for index in ([0, 2], [1, 0])[rank]:
        metric.process(None, [samples[index].to_dict()])
    metrics = metric.evaluate(3)
    torch.save(metrics, folder / f'metrics{rank}.pth')


def test_evaluate__two_ranks_count_every_image_once(tmp_path):
    extra = _sample(tmp_path, 'c', [[1000, 1000, 2001, 2001]], [[1, 1, 2, 0]], [(1, 1, False), (2, 1, False)])
    samples = [*_two_samples(tmp_path), extra]
    torch.save(samples, tmp_path / 'samples.pth')
    with socket.socket() as free:
        free.bind(('127.0.0.1', 0))
        port = free.getsockname()[1]
    multiprocessing.start_processes(_evaluate_rank, args=(tmp_path, port), nprocs=2, start_method='fork')
    expected = _evaluate(_metric(classwise=True), samples)
    for rank in range(2):
        assert torch.load(tmp_path / f'metrics{rank}.pth') == expected


def test_evaluate__real_coco_annotation_as_prediction(coco_sample):
    root = coco_sample / 'annotations'
    annotated = json.load(open(root / 'panoptic_val2017.json'))
    label_of = {
        category['id']: label
        for label, category in enumerate(
            sorted(json.load(open(root / 'panoptic_coco_categories.json')), key=lambda c: -c['isthing']))
    }
    names = {
        category['id']: category['name']
        for category in json.load(open(root / 'panoptic_coco_categories.json'))
    }
    metric = PanopticQualityMetric()
    classes = [names[i] for i in label_of]
    metric.dataset_meta = dict(classes=classes, thing_classes=classes[:80])
    for annotation in annotated['annotations']:
        path = str(root / 'panoptic_val2017' / annotation['file_name'])
        ids = read_segment_ids(path)
        prediction = np.full(ids.shape, 133)
        infos = []
        for instance, segment in enumerate(annotation['segments_info'], start=1):
            mask = ids == segment['id']
            assert mask.sum() == segment['area']
            label = label_of[segment['category_id']]
            prediction[mask] = label + 1000 * instance if label < 80 else label
            infos.append(dict(id=segment['id'], category=label, iscrowd=segment['iscrowd']))
        metric.process(None, [
            dict(
                seg_map_path=path,
                segments_info=infos,
                pred_panoptic_seg=dict(sem_seg=torch.tensor(prediction)[None]))
        ])
    metrics = metric.evaluate(2)
    assert len(metrics) == 9 and set(metrics.values()) == {100.0}
