import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import Evaluator
from mmengine.structures import PixelData
from mmseg.evaluation import IoUMetric

from remax_mm.evaluation import PanopticSemanticIoUMetric
from tests.panoptic_cases import (KINDS, META, NUM_CLASSES, data_sample, draw_blocks, perfect_case,
                                  perfect_sample, segment)


def _metric(**kwargs):
    metric = METRICS.build(dict(type='PanopticSemanticIoUMetric', **kwargs))
    metric.dataset_meta = META
    return metric


def _evaluate(metric, samples):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = META
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def _sample(folder, prediction, ground_truth, segments, name='a'):
    sample = data_sample(folder, name, ground_truth, segments)
    sample.pred_sem_seg = PixelData(sem_seg=torch.as_tensor(np.asarray(prediction))[None])
    return sample


def _worked(folder):
    # Annotation: 2 unlabeled pixels, 4 of a cat, 2 of a crowd of dogs, 4 of sky.
    return _sample(
        folder, [[3, 0, 0, 0, 0, 3, 0, 0, 3, 3, 4, 4]], [[0, 0, 8, 8, 8, 8, 70000, 70000, 5, 5, 5, 5]],
        [segment(8, 0), segment(70000, 1, True), segment(5, 3)])


def test_evaluate__hand_worked(tmp_path):
    metrics = _evaluate(_metric(classwise=True), [_worked(tmp_path)])
    # cat: 3 of 4; sky: 2 of 4 + 1; sea: 0 of 2.
    assert metrics['semantic/IoU/cat'] == pytest.approx(75)
    assert metrics['semantic/IoU/sky'] == pytest.approx(40)
    assert metrics['semantic/IoU/sea'] == 0
    assert metrics['semantic/mIoU'] == pytest.approx((75 + 40) / 3, abs=5e-3)
    assert metrics['semantic/aAcc'] == pytest.approx(100 * 5 / 8)
    assert not any(key.endswith(('/dog', '/car', '/road')) and 'IoU' in key for key in metrics)


def test_evaluate__crowd_counts_as_its_class(tmp_path):
    metrics = _evaluate(_metric(classwise=True, ignore_crowd=False), [_worked(tmp_path)])
    # The two pixels of the crowd, predicted as cat, now count: cat 3 of 6, dog 0 of 2.
    assert metrics['semantic/IoU/cat'] == pytest.approx(50) and metrics['semantic/IoU/dog'] == 0


def test_evaluate__equals_mmseg(tmp_path):
    rng = np.random.default_rng(0)
    mmseg_metric = IoUMetric(ignore_index=255)
    mmseg_metric.dataset_meta = META
    samples = []
    for index in range(5):
        ids = draw_blocks(rng, [0, 11, 12, 13, 14, 15, 16], 16)
        label_of = {0: 255, **{i: (i + index) % NUM_CLASSES for i in range(11, 17)}}
        crowd = 11
        segments = [segment(i, label_of[i], i == crowd) for i in np.unique(ids).tolist() if i]
        prediction = np.where(rng.random(ids.shape) < 0.3, rng.integers(0, NUM_CLASSES, ids.shape), ids % 6)
        samples.append(_sample(tmp_path, prediction, ids, segments, name=str(index)))
        label_of[crowd] = 255
        mmseg_metric.process(None, [
            dict(
                pred_sem_seg=dict(data=torch.as_tensor(prediction)[None]),
                gt_sem_seg=dict(data=torch.as_tensor(np.vectorize(label_of.get)(ids))[None]))
        ])
    expected = mmseg_metric.evaluate(5)
    metrics = _evaluate(_metric(), samples)
    assert metrics == {f'semantic/{key}': value for key, value in expected.items()}
    assert 5 < metrics['semantic/mIoU'] < 95


@pytest.mark.parametrize('kind', KINDS)
def test_evaluate__annotation_as_prediction_is_perfect(tmp_path, kind):
    rng = np.random.default_rng(1)
    samples = [perfect_sample(tmp_path, f'{index}', perfect_case(rng, kind)) for index in range(4)]
    metrics = _evaluate(_metric(classwise=True), samples)
    assert len(metrics) > 3 and set(metrics.values()) == {100.}


def test_evaluate__more_than_255_classes(tmp_path):
    names = tuple(map(str, range(300)))
    metric = METRICS.build(dict(type='PanopticSemanticIoUMetric', classwise=True))
    metric.dataset_meta = dict(classes=names, thing_classes=(), stuff_classes=names)
    sample = _sample(tmp_path, [[255, 255, 299, 0]], [[1, 1, 2, 0]], [segment(1, 255), segment(2, 299)])
    metric.process(None, [sample.to_dict()])
    metrics = metric.evaluate(1)
    assert metrics['semantic/IoU/255'] == metrics['semantic/IoU/299'] == metrics['semantic/mIoU'] == 100


def test_process__bad_input(tmp_path):
    sample = _worked(tmp_path)
    sample.pred_sem_seg = PixelData(sem_seg=torch.zeros(1, 1, 5, dtype=torch.long))
    with pytest.raises(ValueError, match=r'\(1, 12\).*a.png.*\(1, 5\)'):
        _metric().process(None, [sample.to_dict()])
    del sample.pred_sem_seg
    with pytest.raises(ValueError, match='images/a.jpg.*semantic_on'):
        _metric().process(None, [sample.to_dict()])
    with pytest.raises(TypeError):
        PanopticSemanticIoUMetric(class_wise=True)
