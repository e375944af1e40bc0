import numpy as np
import pytest

from remax_mm.evaluation import joint_histogram, match_segments
from remax_mm.evaluation.panoptic_error_report import errors_as_dict, format_errors, summarize_image
from remax_mm.evaluation.panoptic_errors import (ERROR_KINDS, ImageErrors, SegmentError, count_confusions,
                                                 count_errors, find_errors, inspect_pair, quality_without,
                                                 worst_images)
from remax_mm.panoptic_format import read_panoptic_files
from tests.panoptic_cases import (IS_THING, KINDS, NUM_CLASSES, VOID, perfect_case, random_case, segment,
                                  write_panoptic_files)

CAT, DOG, CAR, SKY, SEA = range(5)


def _errors(ground_truth, segments, prediction):
    """Errors of one row of pixels; predicted values are label + 1000 * instance."""
    overlaps = joint_histogram(np.array([ground_truth]), np.array([prediction]))
    label_of = {value: value % 1000 for _, value in overlaps if value % 1000 != VOID}
    matching = match_segments(overlaps, segments, label_of)
    return find_errors(overlaps, matching, segments, label_of, IS_THING)


def _short(errors):
    return [(error.kind, error.annotated, error.segment_id, error.other_id) for error in errors]


def test_find_errors__missed_and_hallucinated():
    errors = _errors([7] * 4 + [8] * 6, [segment(7, CAT), segment(8, SKY)], [VOID] * 4 + [SKY] * 5 + [1000])
    assert errors == [
        SegmentError('missed', True, 7, CAT, None, None),
        SegmentError('hallucinated', False, 1000, CAT, None, None)
    ]


def test_find_errors__wrong_class():
    errors = _errors([7] * 6 + [8] * 4, [segment(7, CAT), segment(8, SKY)], [2001] * 5 + [SKY] * 5)
    assert errors == [
        SegmentError('wrong class', True, 7, CAT, 2001, DOG),
        SegmentError('wrong class', False, 2001, DOG, 7, CAT)
    ]


def test_find_errors__poor_mask_between_one_tenth_and_one_half():
    # 3 shared of 10 and 7 pixels: IoU 3 / 14.
    ground_truth, segments = [7] * 10 + [8] * 10, [segment(7, CAT), segment(8, SKY)]
    errors = _errors(ground_truth, segments, [SKY] * 7 + [1000] * 7 + [SKY] * 6)
    assert {error[:3]
            for error in _short(errors)} == {('poor mask', True, 7), ('poor mask', True, 8),
                                             ('poor mask', False, 1000), ('poor mask', False, SKY)}
    assert all({error[2], error[3]} in ({7, 1000}, {8, SKY}) for error in _short(errors))
    # 1 shared of 10 and 1: an IoU of exactly 0.1 is too low.
    errors = _errors(ground_truth, segments, [SKY] * 9 + [1000] + [SKY] * 10)
    assert _short(errors) == [('missed', True, 7, None), ('hallucinated', False, 1000, None)]


def test_find_errors__poor_mask_of_stuff():
    # The IoU is 4 / 10; stuff is neither merged nor split.
    errors = _errors([7] * 10, [segment(7, SKY)], [SKY] * 4 + [VOID] * 6)
    assert _short(errors) == [('poor mask', True, 7, SKY), ('poor mask', False, SKY, 7)]


def test_find_errors__matched_prediction_is_no_poor_mask_of_another_segment():
    # 1000 matches cat 7 with an IoU of 8 / 10. It covers 2 of 4 pixels of cat 8, which is not more than half.
    errors = _errors([7] * 8 + [8] * 4, [segment(7, CAT), segment(8, CAT)], [1000] * 10 + [VOID] * 2)
    assert _short(errors) == [('missed', True, 8, None)]


def test_find_errors__merged():
    segments = [segment(7, CAT), segment(8, CAT), segment(9, DOG)]
    # Neither cat has an IoU above 0.5: both are merged, and so is the prediction. The dog is missed.
    errors = _errors([7] * 5 + [8] * 5 + [9] * 3, segments, [1000] * 10 + [VOID] * 3)
    assert sorted(
        _short(errors), key=str) == sorted([('merged', True, 7, 1000), ('merged', True, 8, 1000),
                                            ('missed', True, 9, None), ('merged', False, 1000, 8)],
                                           key=str)
    # The larger cat has a match: only the smaller one is an error.
    errors = _errors([7] * 7 + [8] * 3 + [9] * 3, segments, [1000] * 10 + [2001] * 3)
    assert _short(errors) == [('merged', True, 8, 1000)]


def test_find_errors__things_of_two_classes_are_not_merged():
    errors = _errors([7] * 5 + [8] * 5, [segment(7, CAT), segment(8, DOG)], [1000] * 10)
    assert _short(errors) == [('poor mask', True, 7, 1000), ('missed', True, 8, None),
                              ('poor mask', False, 1000, 7)]


def test_find_errors__split():
    segments = [segment(7, CAT), segment(8, SKY)]
    errors = _errors([7] * 9 + [8] * 3, segments, [1000] * 3 + [2000] * 3 + [3000] * 3 + [SKY] * 3)
    assert [error[:2] for error in _short(errors)] == [('split', True)] + [('split', False)] * 3
    assert all(other == 7 for kind, annotated, _, other in _short(errors) if not annotated)
    # The larger part matches, the smaller one is a false positive.
    errors = _errors([7] * 9 + [8] * 3, segments, [1000] * 6 + [2000] * 3 + [SKY] * 3)
    assert _short(errors) == [('split', False, 2000, 7)]
    # The cat is not split if the parts cover only 4 of its 9 pixels.
    errors = _errors([7] * 9 + [8] * 3, segments, [1000] * 2 + [2000] * 2 + [VOID] * 5 + [SKY] * 3)
    assert {error[0] for error in _short(errors)} == {'poor mask'}


def test_find_errors__split_ignores_unlabeled_pixels():
    # 2000 has 2 or 3 pixels on the cat, 2 on sky and 3 unlabeled ones: 2 of 4 is not more than half, 3 of 5
    # is.
    segments = [segment(7, CAT), segment(8, SKY)]
    for inside, kind in ((2, 'hallucinated'), (3, 'split')):
        ground_truth = [7] * 12 + [8] * 10 + [0] * 3
        prediction = [1000] * (12 - inside) + [2000] * (inside + 2) + [SKY] * 8 + [2000] * 3
        errors = _errors(ground_truth, segments, prediction)
        assert [(error.kind, error.segment_id) for error in errors] == [(kind, 2000)]


def test_find_errors__crowd_and_ignored_predictions_are_no_errors():
    segments = [segment(7, CAT, iscrowd=True), segment(8, SKY)]
    errors = _errors([7] * 8 + [8] * 4 + [0] * 4, segments, [1000] * 5 + [VOID] * 3 + [SKY] * 4 + [2001] * 4)
    assert errors == []


def test_find_errors__every_false_negative_and_positive_has_one_kind(tmp_path):
    rng = np.random.default_rng(0)
    cases = [_with_merged_cats_and_split_dogs(random_case(rng)) for _ in range(150)]
    files = read_panoptic_files(**write_panoptic_files(tmp_path, cases))
    images = [inspect_pair(pair, files.is_thing) for pair in files.pairs]
    for image in images:
        assert sorted(e.label for e in image.errors if e.annotated) == _labels(image.counts[:, 3])
        assert sorted(e.label for e in image.errors if not e.annotated) == _labels(image.counts[:, 2])
        assert len({(e.annotated, e.segment_id) for e in image.errors}) == len(image.errors)
        for error in image.errors:
            assert (error.other_label is None) == (error.kind in ('missed', 'hallucinated'))
            assert (error.kind == 'wrong class') == (error.other_label not in (None, error.label))
    numbers = count_errors(images, NUM_CLASSES)
    assert min(numbers[kind].sum() for kind in ERROR_KINDS) > 5  # every kind occurs


def _with_merged_cats_and_split_dogs(case):
    label = np.where(case.prediction >= 1000, case.prediction % 1000, VOID)
    odd = np.arange(case.prediction.shape[1]) % 2
    prediction = np.where(label == CAT, 90000 + CAT, case.prediction)
    return case._replace(prediction=np.where(label == DOG, prediction + 100000 * odd, prediction))


def _labels(numbers):
    return [label for label, number in enumerate(numbers.astype(int)) for _ in range(number)]


@pytest.mark.parametrize('kind', KINDS)
def test_inspect_pair__annotation_as_prediction_has_no_errors(tmp_path, kind):
    rng = np.random.default_rng(1)
    files = read_panoptic_files(**write_panoptic_files(tmp_path, [perfect_case(rng, kind) for _ in range(4)]))
    for pair in files.pairs:
        assert inspect_pair(pair, files.is_thing).errors == []


def _image(image_id, counts, errors=()):
    rows = np.zeros((NUM_CLASSES, 4))
    for label, row in counts.items():
        rows[label] = row
    return ImageErrors(image_id, rows, list(errors))


def _worked_images():
    missed = SegmentError('missed', True, 7, CAT, None, None)
    wrong = [
        SegmentError('wrong class', True, 8, SKY, 5, SEA),
        SegmentError('wrong class', False, 5, SEA, 8, SKY)
    ]
    return [
        _image('good', {CAT: [0.8, 1, 0, 0]}),
        _image('bad', {
            CAT: [0.8, 1, 0, 1],
            SKY: [0, 0, 0, 1],
            SEA: [0, 0, 1, 0]
        }, [missed, *wrong]),
        _image('worse', {CAT: [0, 0, 0, 1]}, [missed]),
        _image('empty', {}),
    ]


def test_quality_without__hand_worked():
    quality = quality_without(_worked_images(), IS_THING)
    cat = 1.6 / 3
    assert quality['missed'] == pytest.approx(100 * 0.8 / 3)
    assert quality['merged'] == pytest.approx(100 * cat / 3)
    # Sky is annotated and stays in the mean with 0. Sea is not annotated and is left out of the mean.
    assert quality['wrong class'] == pytest.approx(100 * cat / 2)
    assert quality_without([_image('empty', {})], IS_THING) == {}


def test_worst_images__lowest_quality_first():
    worst = worst_images(_worked_images(), IS_THING)
    assert [image.image_id for _, image in worst] == ['worse', 'bad', 'good']
    assert [quality for quality, _ in worst] == pytest.approx([0, 100 * 0.8 / 1.5 / 3, 80])
    more = _worked_images()[2]._replace(image_id='more', errors=_worked_images()[1].errors)
    assert worst_images([*_worked_images(), more], IS_THING)[0][1].image_id == 'more'


def test_count_confusions__most_frequent_first():
    images = _worked_images()
    assert count_confusions(images) == [(SKY, SEA, 1)]
    other = SegmentError('wrong class', True, 8, CAT, 5, DOG)
    images.append(_image('x', {}, [other, other]))
    assert count_confusions(images) == [(CAT, DOG, 2), (SKY, SEA, 1)]


def test_summarize_image__text():
    image = _worked_images()[1]
    assert summarize_image(image) == '1 missed, 2 wrong class'
    assert summarize_image(image, annotated=False) == '1 wrong class'
    assert summarize_image(_worked_images()[0]) == 'no errors'


def test_report__tables_and_dict_agree(tmp_path):
    rng = np.random.default_rng(2)
    files = read_panoptic_files(**write_panoptic_files(tmp_path, [random_case(rng) for _ in range(40)]))
    images = [inspect_pair(pair, files.is_thing) for pair in files.pairs]
    report, text = errors_as_dict(files, images), format_errors(files, images, num_worst=3)
    for side, column in (('annotated', 'FN'), ('predicted', 'FP')):
        total = sum(error[side] for error in report['errors'].values())
        assert total == sum(row[column] for row in report['classes']) > 0
    cells = [[cell.strip() for cell in line.split('|')[1:-1]] for line in text.splitlines() if '|' in line]
    for kind in ERROR_KINDS:
        row = next(row for row in cells if row[0] == kind)
        expected = report['errors'][kind]
        assert row[1:] == [
            str(expected['annotated']),
            str(expected['predicted']), f'{expected["PQ_without"]:.2f}'
        ]
    qualities = [image['PQ'] for image in report['images']]
    assert qualities == sorted(qualities) and len(qualities) == 40
    assert [row[0] for row in cells[-3:]] == [str(image['id']) for image in report['images'][:3]]
    error = report['images'][0]['errors'][0]
    assert error['category'] in files.classes and error['kind'] in ERROR_KINDS
