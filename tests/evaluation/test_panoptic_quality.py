from collections import defaultdict
from importlib import import_module
from types import SimpleNamespace

import numpy as np
import pytest

from remax_mm.evaluation import class_quality, count_segments, mean_quality
from remax_mm.panoptic_format import number_segments, write_segment_ids
from remax_mm.panopticapi_replacement import replace_missing_panopticapi
from tests.panoptic_cases import IS_THING, KINDS, NUM_CLASSES, VOID, perfect_case, random_case, segment


def _reference_counts(prediction, ground_truth, segments):
    """The rules of panopticapi, applied to boolean masks one by one."""
    counts = np.zeros((NUM_CLASSES, 4))
    unlabeled = ground_truth == 0
    predicted = {v: prediction == v for v in np.unique(prediction).tolist() if v % 1000 != VOID}
    matched = set()
    for annotated in segments:
        if annotated['iscrowd']:
            continue
        mask, found = ground_truth == annotated['id'], False
        for value, other in predicted.items():
            if value % 1000 != annotated['category']:
                continue
            iou = (mask & other).sum() / (mask | (other & ~unlabeled)).sum()
            if iou > 0.5:
                found = True
                matched.add(value)
                counts[annotated['category']] += iou, 1, 0, 0
        if not found:
            counts[annotated['category']] += 0, 0, 0, 1
    for value, mask in predicted.items():
        if value in matched:
            continue
        ignored = unlabeled
        crowds = [s['id'] for s in segments if s['iscrowd'] and s['category'] == value % 1000]
        if crowds:
            ignored = ignored | (ground_truth == crowds[-1])
        if (mask & ignored).sum() / mask.sum() > 0.5:
            continue
        counts[value % 1000] += 0, 0, 1, 0
    return counts


def _reference_quality(counts, is_thing):
    """The means of panopticapi's `pq_average`, class by class."""
    means = {}
    for suffix, wanted in (('', (True, False)), ('_th', (True, )), ('_st', (False, ))):
        sums, number = np.zeros(3), 0
        for (iou, tp, fp, fn), thing in zip(counts.tolist(), is_thing):
            if thing not in wanted or tp + fp + fn == 0:
                continue
            number += 1
            sums += iou / (tp + 0.5 * fp + 0.5 * fn), iou / tp if tp else 0, tp / (tp + 0.5 * fp + 0.5 * fn)
        if number:
            means.update({
                f'{name}{suffix}': 100 * value / number
                for name, value in zip(('PQ', 'SQ', 'RQ'), sums)
            })
    return means


def test_count_segments__reference():
    rng = np.random.default_rng(0)
    total = np.zeros((NUM_CLASSES, 4))
    crowds = unlabeled = 0
    for _ in range(400):
        case = random_case(rng)
        counts = count_segments(*case, NUM_CLASSES)
        expected = _reference_counts(*case)
        np.testing.assert_allclose(counts, expected, rtol=0, atol=1e-9)
        assert mean_quality(counts, IS_THING) == pytest.approx(
            _reference_quality(expected, IS_THING), rel=0, abs=1e-9)
        total += counts
        crowds += any(s['iscrowd'] for s in case.segments)
        unlabeled += (case.ground_truth == 0).any()
    # Every rule was applied: matches, false positives and false negatives of every class, crowd and void.
    assert (total[:, 1:] > 20).all() and min(crowds, unlabeled) > 200


def _mmdet_counts(monkeypatch, folder, prediction, ground_truth, segments):
    """Counts of mmdet's copy of panopticapi's loop, with substitutes for two names of panopticapi."""
    from mmdet.evaluation.functional import panoptic_utils

    class Statistics(defaultdict):

        def __init__(self):
            super().__init__(lambda: SimpleNamespace(iou=0., tp=0, fp=0, fn=0))

    monkeypatch.setattr(panoptic_utils, 'PQStat', Statistics)
    monkeypatch.setattr(panoptic_utils, 'rgb2id',
                        lambda rgb: rgb.astype(np.uint32) @ np.uint32([1, 256, 65536]))
    ids, predicted = number_segments(prediction, NUM_CLASSES)
    write_segment_ids(folder / 'gt.png', ground_truth)
    write_segment_ids(folder / 'pred.png', ids)
    annotation = dict(
        image_id=1,
        file_name='gt.png',
        segments_info=[
            dict(
                id=s['id'],
                category_id=s['category'],
                iscrowd=s['iscrowd'],
                area=(ground_truth == s['id']).sum()) for s in segments
        ])
    result = dict(
        image_id=1,
        file_name='pred.png',
        segments_info=[dict(id=s['id'], category_id=s['label']) for s in predicted])
    statistics = panoptic_utils.pq_compute_single_core(0, [(annotation, result)], str(folder), str(folder),
                                                       {label: {}
                                                        for label in range(NUM_CLASSES)})
    rows = (statistics[label] for label in range(NUM_CLASSES))
    return np.array([[row.iou, row.tp, row.fp, row.fn] for row in rows])


def test_count_segments__mmdet(monkeypatch, tmp_path):
    rng = np.random.default_rng(1)
    for _ in range(40):
        prediction, ground_truth, segments = random_case(rng)
        expected = _mmdet_counts(monkeypatch, tmp_path, prediction, ground_truth, segments)
        np.testing.assert_allclose(
            count_segments(prediction, ground_truth, segments, NUM_CLASSES), expected, rtol=0, atol=1e-9)


def test_count_segments__panopticapi(tmp_path):
    if replace_missing_panopticapi():
        pytest.skip('panopticapi is not installed')
    evaluation = import_module('panopticapi.evaluation')
    rng = np.random.default_rng(2)
    for _ in range(40):
        prediction, ground_truth, segments = random_case(rng)
        ids, predicted = number_segments(prediction, NUM_CLASSES)
        write_segment_ids(tmp_path / 'gt.png', ground_truth)
        write_segment_ids(tmp_path / 'pred.png', ids)
        annotation = dict(
            image_id=1,
            file_name='gt.png',
            segments_info=[
                dict(
                    id=s['id'],
                    category_id=s['category'],
                    iscrowd=int(s['iscrowd']),
                    area=int((ground_truth == s['id']).sum())) for s in segments
            ])
        result = dict(
            image_id=1,
            file_name='pred.png',
            segments_info=[dict(id=s['id'], category_id=s['label']) for s in predicted])
        categories = {label: dict(isthing=int(IS_THING[label])) for label in range(NUM_CLASSES)}
        statistics = evaluation.pq_compute_single_core(0, [(annotation, result)], str(tmp_path),
                                                       str(tmp_path), categories)
        rows = (statistics[label] for label in range(NUM_CLASSES))
        expected = [[row.iou, row.tp, row.fp, row.fn] for row in rows]
        np.testing.assert_allclose(
            count_segments(prediction, ground_truth, segments, NUM_CLASSES), expected, rtol=0, atol=1e-9)


def test_count_segments__deeplab2_example_by_the_rules_of_panopticapi():
    # deeplab2's unit test of its own evaluator, with every ignored pixel (9) as void: PQ (1 + 2/3 + 0) / 3.
    ground_truth = np.array([[1, 0, 0], [2, 3, 3], [2, 0, 0]])
    segments = [segment(1, 0), segment(2, 1), segment(3, 2)]
    prediction = np.array([[0, 0, 3], [1, 1001, 1001], [1, 3, 1003]])
    counts = count_segments(prediction, ground_truth, segments, num_classes=3)
    assert counts.tolist() == [[1, 1, 0, 0], [1, 1, 1, 0], [0, 0, 0, 1]]
    assert mean_quality(counts, [False, True, True])['PQ'] == pytest.approx(100 * 5 / 9)


def test_count_segments__iou_of_exactly_one_half_is_no_match():
    counts = count_segments(np.array([[0, 0, 5, 5]]), np.array([[1, 1, 1, 1]]), [segment(1, 0)], 5)
    assert counts[0].tolist() == [0, 0, 1, 1]


def test_count_segments__void_is_not_part_of_the_union():
    # 3 of 4 annotated pixels, and 4 unlabeled ones: IoU 3 / (7 + 4 - 3 - 4).
    counts = count_segments(np.array([[0] * 7 + [5]]), np.array([[0] * 4 + [1] * 4]), [segment(1, 0)], 5)
    assert counts[0].tolist() == [0.75, 1, 0, 0]


def test_count_segments__crowd_is_part_of_the_union():
    segments = [segment(1, 0), segment(2, 0, iscrowd=True)]
    counts = count_segments(np.array([[1000] * 7 + [5]]), np.array([[2] * 4 + [1] * 4]), segments, 5)
    # An IoU of 3 / 8 is no match. The prediction is ignored: 4 of its 7 pixels are crowd of its class.
    assert counts[0].tolist() == [0, 0, 0, 1]


def test_count_segments__prediction_on_crowd_of_another_class_is_not_ignored():
    segments = [segment(2, 1, iscrowd=True)]
    counts = count_segments(np.array([[1000, 1000]]), np.array([[2, 2]]), segments, 5)
    assert counts[0].tolist() == [0, 0, 1, 0] and not counts[1].any()


def test_count_segments__prediction_with_half_of_its_pixels_on_void_is_not_ignored():
    counts = count_segments(np.array([[1, 1, 5, 5]]), np.array([[0, 7, 7, 7]]), [segment(7, 0)], 5)
    assert counts[1].tolist() == [0, 0, 1, 0]


def test_count_segments__no_segments_and_all_void():
    empty = np.zeros((2, 3), dtype=np.int32)
    assert not count_segments(np.full((2, 3), 5), empty, [], 5).any()
    assert not count_segments(np.full((2, 3), 3), empty, [], 5).any()  # a prediction on void only


def test_count_segments__order_of_segments_and_ids_do_not_matter():
    rng = np.random.default_rng(3)
    prediction, ground_truth, segments = random_case(rng)
    segments = [dict(segment, iscrowd=False) for segment in segments]
    counts = count_segments(prediction, ground_truth, segments, NUM_CLASSES)
    renamed = {0: 0, **{s['id']: new for new, s in enumerate(segments, start=1)}}
    other = count_segments(
        np.where(prediction >= 1000, prediction + 7000, prediction),
        np.vectorize(renamed.get)(ground_truth), [dict(s, id=renamed[s['id']]) for s in reversed(segments)],
        NUM_CLASSES)
    np.testing.assert_allclose(counts, other, atol=1e-12)


@pytest.mark.parametrize('kind, groups', list(zip(KINDS, (3, 2, 2, 3, 3))))
def test_count_segments__annotation_as_prediction_is_perfect(kind, groups):
    rng = np.random.default_rng(4)
    total = np.zeros((NUM_CLASSES, 4))
    for _ in range(20):
        total += count_segments(*perfect_case(rng, kind), NUM_CLASSES)
    means = mean_quality(total, IS_THING)
    assert len(means) == 3 * groups and set(means.values()) == {100.0}


@pytest.mark.parametrize('prediction, ground_truth, segments, message', [
    ([[0]], [[1, 1]], [segment(1, 0)], r'\(1, 2\)'),
    ([[1]], [[1]], [], r'the list lacks the ids \[1\]'),
    ([[1]], [[0]], [segment(4, 0)], r'the map lacks the ids \[4\]'),
    ([[1]], [[4]], [segment(4, 5)], r'\[5\]'),
    ([[1]], [[4]], [segment(4, 0), segment(4, 1)], 'unique'),
    ([[1]], [[0]], [segment(0, 0)], 'unique'),
    ([[6]], [[0]], [], r'\[6\]'),
    ([[-1]], [[0]], [], '-1'),
])
def test_count_segments__bad_input(prediction, ground_truth, segments, message):
    with pytest.raises(ValueError, match=message):
        count_segments(np.array(prediction), np.array(ground_truth), segments, num_classes=5)


def test_count_segments__ids_that_differ():
    # Segment 4 has no pixels: a false negative. Id 9 is not listed: the prediction on it is not ignored.
    counts = count_segments(np.array([[1000, 1000]]), np.array([[9, 9]]), [segment(4, 1)], 5, check_ids=False)
    assert counts[:2].tolist() == [[0, 0, 1, 0], [0, 0, 0, 1]]


def test_class_quality__hand_worked():
    quality = class_quality([[1.5, 2, 1, 3], [0, 0, 0, 2], [0, 0, 0, 0]])
    np.testing.assert_allclose(quality.pq, [1.5 / 4, 0, np.nan])
    np.testing.assert_allclose(quality.sq, [0.75, 0, np.nan])
    np.testing.assert_allclose(quality.rq, [2 / 4, 0, np.nan])


def test_mean_quality__only_classes_that_occur():
    means = mean_quality([[0.8, 1, 0, 0], [0, 0, 0, 0], [0.6, 1, 1, 1]], [True, True, False])
    assert means['PQ_th'] == pytest.approx(80)
    assert means['PQ_st'] == pytest.approx(30)
    assert means['PQ'] == pytest.approx(55) and means['SQ'] == pytest.approx(
        70) and means['RQ'] == pytest.approx(75)


@pytest.mark.parametrize('is_thing, absent', [(True, '_st'), (False, '_th')])
def test_mean_quality__only_things_or_only_stuff(is_thing, absent):
    means = mean_quality([[0.8, 1, 0, 0]], [is_thing])
    assert means['PQ'] == pytest.approx(80)
    assert len(means) == 6 and not any(key.endswith(absent) for key in means)


def test_mean_quality__no_segments():
    assert mean_quality(np.zeros((2, 4)), [True, False]) == {}
