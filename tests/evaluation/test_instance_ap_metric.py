import json

import numpy as np
import pytest
import torch
from mmdet.registry import METRICS
from mmengine.evaluator import Evaluator
from PIL import Image
from pycocotools import mask as mask_util
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from remax_mm.evaluation import PanopticInstanceAPMetric
from tests.panoptic_cases import (KINDS, META, NUM_THINGS, data_sample, draw_blocks, instances, perfect_case,
                                  perfect_sample, segment)


def _metric(meta=META, **kwargs):
    metric = METRICS.build(dict(type='PanopticInstanceAPMetric', **kwargs))
    metric.dataset_meta = meta
    return metric


def _evaluate(metric, samples):
    evaluator = Evaluator(metric)
    evaluator.dataset_meta = metric.dataset_meta
    for sample in samples:
        evaluator.process([sample])
    return evaluator.evaluate(len(samples))


def _boxes(*boxes, size=(40, 60)):
    masks = np.zeros((len(boxes), *size), dtype=bool)
    for mask, (top, left, height, width) in zip(masks, boxes):
        mask[top:top + height, left:left + width] = True
    return masks


def _ids(masks, ids, size=(40, 60)):
    drawn = np.zeros(size, dtype=np.int64)
    for mask, value in zip(masks, ids):
        drawn[mask] = value
    return drawn


def test_evaluate__hand_worked(tmp_path):
    # Two cats, detected with the scores 0.9 and 0.7, and a false positive with 0.8. The precision is 1 up to
    # a recall of 0.5 and 2/3 above it: for 51 and for 50 of COCO's 101 recall thresholds.
    masks = _boxes((0, 0, 10, 10), (20, 0, 10, 10), (0, 40, 10, 10))
    sample = data_sample(tmp_path, 'a', _ids(masks[:2], [70000, 9]), [segment(70000, 0), segment(9, 0)])
    sample.pred_instances = instances(masks[[0, 2, 1]], [0, 0, 0], [0.9, 0.8, 0.7])
    metrics = _evaluate(_metric(classwise=True), [sample])
    assert metrics['coco/segm_mAP'] == pytest.approx((51 + 50 * 2 / 3) / 101, abs=5e-4)
    assert metrics['coco/cat_precision'] == metrics['coco/segm_mAP']
    assert np.isnan(metrics['coco/dog_precision'])  # there is no dog


def test_evaluate__iou_thresholds(tmp_path):
    # 6 of 10 columns: an IoU of 0.6 reaches 3 of the 10 thresholds, 0.5, 0.55 and 0.6.
    sample = data_sample(tmp_path, 'a', _ids(_boxes((0, 0, 10, 10)), [5]), [segment(5, 2)])
    sample.pred_instances = instances(_boxes((0, 0, 10, 6)), [2], [0.5])
    metrics = _evaluate(_metric(), [sample])
    assert metrics['coco/segm_mAP'] == pytest.approx(0.3)
    assert (metrics['coco/segm_mAP_50'], metrics['coco/segm_mAP_75']) == (1, 0)


def test_evaluate__crowd_regions_are_ignored(tmp_path):
    # A cat, and a crowd region of cats with two much smaller detections inside.
    masks = _boxes((0, 0, 10, 10), (20, 0, 20, 60), (22, 2, 4, 4), (30, 30, 5, 5))
    ids = _ids(masks[:2], [1, 2])
    for iscrowd, expected in ((True, 1.), (False, 51 / 101)):
        sample = data_sample(tmp_path, 'a', ids, [segment(1, 0), segment(2, 0, iscrowd)])
        sample.pred_instances = instances(masks[[0, 2, 3]], [0, 0, 0], [0.9, 0.8, 0.7])
        # As an ordinary segment, the second region is a false negative: the recall is at most 0.5.
        assert _evaluate(_metric(), [sample])['coco/segm_mAP'] == pytest.approx(expected, abs=5e-4)


def test_evaluate__detections_on_crowd_of_another_class_are_false_positives(tmp_path):
    masks = _boxes((0, 0, 10, 10), (20, 0, 20, 60), (22, 2, 4, 4))
    sample = data_sample(tmp_path, 'a', _ids(masks[:2], [1, 2]), [segment(1, 0), segment(2, 1, True)])
    sample.pred_instances = instances(masks[[2, 0]], [0, 0], [0.9, 0.8])
    assert _evaluate(_metric(), [sample])['coco/segm_mAP'] == pytest.approx(0.5)


def test_evaluate__sizes_are_those_of_the_masks(tmp_path):
    # A diagonal of 40 pixels is small. Its box, 40 x 40 = 1600 pixels, would be medium (32 x 32 or more).
    diagonal = np.eye(40, 60, dtype=bool)
    sample = data_sample(tmp_path, 'a', diagonal.astype(int), [segment(1, 0)])
    sample.pred_instances = instances(diagonal[None], [0], [0.9])
    metrics = _evaluate(_metric(), [sample])
    assert (metrics['coco/segm_mAP_s'], metrics['coco/segm_mAP_m']) == (1, -1)


def _random_samples(folder, rng, number):
    samples = []
    for index in range(number):
        ids = draw_blocks(rng, [0, 11, 12, 13, 14, 15], 48)
        listed = [i for i in np.unique(ids).tolist() if i]
        segments = [
            segment(i, i % 4, iscrowd=bool(i % 4 < NUM_THINGS and rng.random() < 0.2)) for i in listed
        ]
        sample = data_sample(folder, f'image {index}', ids, segments)
        masks = [np.roll(ids == i, rng.integers(0, 3, 2), (0, 1)) for i in listed] + [ids == -1]
        masks[-1][:8, :8] = True
        labels = rng.integers(0, NUM_THINGS, len(masks)) * (rng.random(len(masks)) < 0.3)
        labels = [
            i % 4 if i % 4 < NUM_THINGS and not label else label for i, label in zip([*listed, 1], labels)
        ]
        sample.pred_instances = instances(masks, labels, rng.random(len(masks)).tolist())
        samples.append(sample)
    return samples


def _cocoapi(samples):
    """The evaluation of pycocotools on the same things, converted to its format here."""
    images, annotations, results = [], [], []
    for sample in samples:
        images.append(dict(id=sample.img_id, height=48, width=48))
        ids = np.asarray(Image.open(sample.seg_map_path)).astype(np.int64) @ [1, 256, 65536]
        for info in sample.segments_info:
            if info['category'] < NUM_THINGS:
                mask = np.asfortranarray(ids == info['id'])
                annotations.append(
                    dict(
                        id=len(annotations) + 1,
                        image_id=sample.img_id,
                        category_id=info['category'],
                        iscrowd=int(info['iscrowd']),
                        area=int(mask.sum()),
                        bbox=[0, 0, 1, 1],
                        segmentation=mask_util.encode(mask.astype(np.uint8))))
        predicted = sample.pred_instances
        for mask, label, score in zip(predicted.masks, predicted.labels, predicted.scores):
            results.append(
                dict(
                    image_id=sample.img_id,
                    category_id=int(label),
                    score=float(score),
                    segmentation=mask_util.encode(np.asfortranarray(mask.numpy().astype(np.uint8)))))
    truth = COCO()
    truth.dataset = dict(
        info={}, images=images, annotations=annotations, categories=[dict(id=i) for i in range(NUM_THINGS)])
    truth.createIndex()
    evaluation = COCOeval(truth, truth.loadRes(results), 'segm')
    evaluation.evaluate()
    evaluation.accumulate()
    evaluation.summarize()
    return evaluation


def test_evaluate__equals_pycocotools(tmp_path):
    samples = _random_samples(tmp_path, np.random.default_rng(0), 8)
    metrics = _evaluate(_metric(classwise=True), samples)
    evaluation = _cocoapi(samples)
    for key, expected in zip(('mAP', 'mAP_50', 'mAP_75', 'mAP_s', 'mAP_m'), evaluation.stats):
        assert metrics[f'coco/segm_{key}'] == pytest.approx(expected, abs=5.1e-4)
    assert 0.1 < metrics['coco/segm_mAP'] < 0.9
    for label in range(NUM_THINGS):
        precision = evaluation.eval['precision'][:, :, label, 0, -1]
        assert metrics[f'coco/{META["classes"][label]}_precision'] == pytest.approx(
            precision.mean(), abs=5.1e-4)


def _instances_file(folder, samples, id_of_name):
    """Write the ground truth of the samples in COCO's instance format, with the given category ids."""
    dataset = _cocoapi(samples).cocoGt.dataset
    for annotation in dataset['annotations']:
        annotation['category_id'] = id_of_name[META['classes'][annotation['category_id']]]
        annotation['segmentation']['counts'] = annotation['segmentation']['counts'].decode()
    dataset['categories'] = [dict(id=i, name=name) for name, i in id_of_name.items()]
    path = folder / 'instances.json'
    path.write_text(json.dumps(dataset))
    return str(path)


def test_evaluate__instance_annotations_with_other_ids(tmp_path):
    samples = _random_samples(tmp_path, np.random.default_rng(1), 6)
    path = _instances_file(tmp_path, samples, dict(bird=4, car=7, cat=90, dog=1))
    for sample in samples:
        del sample.seg_map_path, sample.segments_info
    metrics = _evaluate(_metric(ann_file=path, classwise=True), samples[:4])
    samples = _random_samples(tmp_path, np.random.default_rng(1), 6)
    assert metrics == pytest.approx(_evaluate(_metric(classwise=True), samples[:4]), nan_ok=True)
    assert len({metrics[f'coco/{name}_precision'] for name in META['thing_classes']}) == 3


def test_evaluate__instance_annotations_of_other_classes_or_images(tmp_path):
    samples = _random_samples(tmp_path, np.random.default_rng(2), 2)
    path = _instances_file(tmp_path, samples, dict(cat=1, dog=2, car=3))
    meta = dict(META, classes=('cat', 'cow', *META['classes'][2:]), thing_classes=('cat', 'cow', 'car'))
    with pytest.raises(ValueError, match=r"instances.json.*\['cow'\]"):
        _evaluate(_metric(meta, ann_file=path), samples)
    samples[1].set_metainfo(dict(img_id='elsewhere'))
    with pytest.raises(ValueError, match='instances.json.*elsewhere'):
        _evaluate(_metric(ann_file=path), samples)


@pytest.mark.parametrize('kind', KINDS)
def test_evaluate__annotation_as_prediction_is_perfect(tmp_path, kind):
    rng = np.random.default_rng(3)
    samples = [perfect_sample(tmp_path, f'{index}', perfect_case(rng, kind)) for index in range(6)]
    metrics = _evaluate(_metric(), samples)
    if kind == 'stuff-only':
        assert metrics == {}
    else:
        assert metrics['coco/segm_mAP'] == metrics['coco/segm_mAP_75'] == 1


def test_evaluate__second_evaluation_on_other_images(tmp_path):
    metric, rng = _metric(), np.random.default_rng(4)
    first, second = (_random_samples(tmp_path, rng, 2) for _ in range(2))
    _evaluate(metric, first)
    second = _random_samples(tmp_path, np.random.default_rng(5), 3)
    assert _evaluate(metric, second) == _evaluate(_metric(), second)


def test_evaluate__no_thing_classes(tmp_path):
    meta = dict(classes=('sky', ), thing_classes=(), stuff_classes=('sky', ))
    sample = data_sample(tmp_path, 'a', np.ones((4, 5), dtype=int), [dict(id=1, category=0, iscrowd=False)])
    sample.pred_instances = instances(np.zeros((0, 4, 5)), [], [])
    assert _evaluate(_metric(meta), [sample]) == {}


def test_process__bad_input(tmp_path):
    sample = data_sample(tmp_path, 'a', np.ones((4, 5), dtype=int), [segment(1, 0)])
    with pytest.raises(ValueError, match='images/a.jpg.*instance_on'):
        _metric().process(None, [sample.to_dict()])
    sample.pred_instances = instances(np.ones((1, 4, 4)), [0], [0.5])
    with pytest.raises(ValueError, match=r'\(4, 5\).*images/a.jpg.*\(4, 4\)'):
        _metric().process(None, [sample.to_dict()])
    sample.pred_instances = instances(np.ones((1, 4, 6)), [0], [0.5])
    sample.set_metainfo(dict(ori_shape=(4, 6)))
    with pytest.raises(ValueError, match=r'a.png.*\(4, 6\).*\(4, 5\)'):
        _metric().process(None, [sample.to_dict()])
    with pytest.raises(ValueError, match='thing classes first'):
        _metric(dict(META, thing_classes=('cat', 'sky'))).evaluate(0)
    with pytest.raises(TypeError):
        PanopticInstanceAPMetric(class_wise=True)
    assert torch.is_tensor(sample.pred_instances.labels)  # the sample was not changed
