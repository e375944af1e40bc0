"""Targets built from index maps, compared with loops over segments."""
import numpy as np
import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from remax_mm.models.task_modules import build_panoptic_targets, note_largest_values, targets_from_samples


def _sample(segment_map, labels, is_thing, dtype=torch.uint8):
    sample = DetDataSample(metainfo=dict(img_path='some/image.jpg'))
    sample.gt_panoptic_seg = PixelData(segment_map=torch.as_tensor(np.asarray(segment_map)).to(dtype)[None])
    sample.gt_segments = InstanceData(
        labels=torch.tensor(labels, dtype=torch.int64), is_thing=torch.tensor(is_thing, dtype=torch.bool))
    return sample


def _random_batch(seed, num_classes=7, num_things=4, size=(33, 65), num_segments=(9, 0, 4), coarse=8):
    rng = np.random.default_rng(seed)
    samples = []
    for count in num_segments:
        blocks = rng.integers(0, count + 1, (size[0] // coarse + 1, size[1] // coarse + 1))
        index = np.kron(blocks, np.ones((coarse, coarse), int))[:size[0], :size[1]]
        index[rng.random(size) < 0.2] = 0
        labels = rng.integers(0, num_classes, count)
        samples.append(_sample(index, labels, labels < num_things))
    return samples


def _reference_targets(samples, num_classes, stride, num_slots):
    """Per image: list of (label, mask) in table order, void and semantic map, pixel by pixel."""
    result = []
    for sample in samples:
        full = sample.gt_panoptic_seg.segment_map[0].numpy()
        height, width = full.shape
        labels, is_thing = sample.gt_segments.labels.tolist(), sample.gt_segments.is_thing.tolist()
        owner = {}
        for i, label in enumerate(labels):
            first = [j for j, other in enumerate(labels) if other == label and not is_thing[j]]
            owner[i + 1] = i + 1 if is_thing[i] else first[0] + 1
        columns = range(0, width, stride)
        small = [[owner.get(int(full[y, x]), 0) for x in columns] for y in range(0, height, stride)]
        area = {}
        for row in small:
            for value in row:
                if value:
                    area[value] = area.get(value, 0) + 1
        chosen = sorted(sorted(area, key=lambda v: (-area[v], v))[:num_slots])
        void = np.array([[value not in chosen for value in row] for row in small])
        label_of = {value: labels[value - 1] for value in chosen}
        sem_seg = np.array([[label_of.get(value, num_classes) for value in row] for row in small])
        segments = [(label_of[v], np.array([[value == v for value in row] for row in small])) for v in chosen]
        result.append((segments, void, sem_seg))
    return result


@pytest.mark.parametrize('stride', [1, 2, 4, 8])
@pytest.mark.parametrize('num_slots', [None, 3])
def test_build_panoptic_targets__equals_loop(stride, num_slots):
    for seed in range(4):
        samples = _random_batch(seed)
        size = (32 // stride + 1, 64 // stride + 1)
        targets = build_panoptic_targets(samples, 7, size, num_slots)
        reference = _reference_targets(samples, 7, stride, num_slots)
        assert targets.labels.shape[1] == (num_slots or 9)  # the largest table
        for b, (segments, void, sem_seg) in enumerate(reference):
            for m in range(targets.labels.shape[1]):
                label, mask = segments[m] if m < len(segments) else (7, np.zeros_like(void))
                assert targets.labels[b, m] == label
                assert np.array_equal(targets.owner[b].numpy() == m, mask)
                assert targets.area[b, m] == mask.sum()
            assert np.array_equal(targets.void[b].numpy(), void)
            assert np.array_equal(targets.sem_seg[b].numpy(), sem_seg)


def test_build_panoptic_targets__void_pixels_have_no_class():
    targets = build_panoptic_targets(_random_batch(5), 7, (9, 17))
    assert torch.equal(targets.sem_seg == 7, targets.void)
    assert torch.equal(targets.area.sum(1), (~targets.void).sum((1, 2)))


def test_build_panoptic_targets__hand_worked():
    # Stride 2 reads every second pixel of every second row. Segment 3 has none of them and is dropped.
    index = [[1, 3, 2, 2, 2], [3, 3, 3, 3, 3], [1, 3, 0, 3, 4], [3, 3, 3, 3, 3], [1, 1, 4, 4, 0]]
    # Segments 2 and 4 are both stuff of class 5: one segment.
    targets = build_panoptic_targets([_sample(index, [0, 5, 1, 5], [True, False, True, False])], 6, (3, 3))
    assert targets.labels.tolist() == [[0, 5, 6, 6]]
    assert targets.area.tolist() == [[3, 4, 0, 0]]
    assert targets.owner[0].tolist() == [[0, 1, 1], [0, 4, 1], [0, 1, 4]]
    assert targets.void[0].tolist() == [[False, False, False], [False, True, False], [False, False, True]]
    assert targets.sem_seg[0].tolist() == [[0, 5, 5], [0, 6, 5], [0, 5, 6]]
    assert all(part.dtype == torch.int64 for part in targets) and targets.void.dtype == torch.bool


def test_build_panoptic_targets__things_of_one_class_stay_apart():
    targets = build_panoptic_targets([_sample([[1, 1, 2]], [0, 0], [True, True])], 1, (1, 3))
    assert targets.labels.tolist() == [[0, 0]]
    assert targets.owner[0].tolist() == [[0, 0, 1]]


def test_build_panoptic_targets__renumbering_the_table_permutes_segments():
    sample = _random_batch(3, num_segments=(8, ))[0]
    before = build_panoptic_targets([sample], 7, (17, 33))
    new_row = torch.tensor([4, 0, 7, 2, 1, 6, 3, 5])  # of each old row
    old_row = new_row.argsort()
    look_up = torch.cat([torch.zeros(1, dtype=torch.int64), new_row + 1])
    table = sample.gt_segments[old_row]
    renumbered = _sample(look_up[sample.gt_panoptic_seg.segment_map[0].long()], table.labels.tolist(),
                         table.is_thing.tolist())
    after = build_panoptic_targets([renumbered], 7, (17, 33))

    def rows(targets):
        labels = enumerate(targets.labels[0].tolist())
        return sorted((label, (targets.owner[0] == segment).flatten().tolist()) for segment, label in labels)

    assert rows(before) == rows(after)
    assert torch.equal(before.void, after.void) and torch.equal(before.sem_seg, after.sem_seg)


def test_build_panoptic_targets__no_segments_at_all():
    targets = build_panoptic_targets([_sample(np.zeros((5, 5)), [], [])] * 2, 6, (3, 3))
    assert targets.owner.shape == (2, 3, 3) and targets.area.tolist() == [[0], [0]]
    assert targets.labels.tolist() == [[6], [6]]
    assert targets.void.all() and (targets.sem_seg == 6).all()


def test_build_panoptic_targets__more_than_255_segments():
    index = torch.arange(400).view(20, 20)
    targets = build_panoptic_targets([_sample(index, [0] * 399, [True] * 399, torch.int32)], 1, (20, 20))
    assert targets.area.shape == (1, 399) and (targets.area == 1).all()
    assert targets.owner[0, 19, 19] == 398 and targets.owner[0, 0].tolist() == [399, *range(19)]


def test_build_panoptic_targets__logs_dropped_segments_once(monkeypatch):
    messages = []
    targets_from_samples._warn_of_dropped_segments.cache_clear()
    monkeypatch.setattr(targets_from_samples, 'print_log', lambda message, **kwargs: messages.append(message))
    sample = _sample([[1, 2, 2, 3, 3, 3]], [0, 1, 2], [True, True, False])
    for _ in range(3):
        targets = build_panoptic_targets([sample], 3, (1, 6), num_slots=2)
    assert targets.labels.tolist() == [[1, 2]]
    assert targets.void[0].tolist() == [[True, False, False, False, False, False]]
    assert len(messages) == 1 and '2 mask slots' in messages[0]
    targets_from_samples._warn_of_dropped_segments.cache_clear()


@pytest.mark.parametrize('num_slots', [None, 3])
def test_build_panoptic_targets__no_copy_to_the_host(num_slots, no_host_copies):
    samples = _random_batch(0)
    for sample in samples:
        note_largest_values(sample)
    with no_host_copies(allowed=0):
        build_panoptic_targets(samples, 7, (17, 33), num_slots)


def test_note_largest_values__are_what_is_checked():
    sample = _sample([[1, 2]], [3, 5], [True, True])
    note_largest_values(sample)
    assert sample.gt_largest == (2, 5)
    sample.set_metainfo(dict(gt_largest=(3, 5)))
    with pytest.raises(ValueError, match='some/image.jpg, but got 3'):
        build_panoptic_targets([sample], 6, (1, 2))


def test_build_panoptic_targets__errors():
    good = _sample(np.zeros((33, 33)), [], [])
    with pytest.raises(ValueError, match=r'ground truth of \(33, 33\) and a prediction of \(9, 7\)'):
        build_panoptic_targets([good], 6, (9, 7))
    with pytest.raises(ValueError, match=r'ground truth of \(32, 32\) and a prediction of \(8, 8\)'):
        build_panoptic_targets([_sample(np.zeros((32, 32)), [], [])], 6, (8, 8))
    with pytest.raises(ValueError, match='padded to one size'):
        build_panoptic_targets([good, _sample(np.zeros((33, 65)), [], [])], 6, (9, 9))
    with pytest.raises(ValueError, match='some/image.jpg, but got 2'):
        build_panoptic_targets([_sample(np.full((33, 33), 2), [0], [True])], 6, (9, 9))
    for label in (6, 9):
        with pytest.raises(ValueError, match=f'num_classes=6.*class {label}'):
            build_panoptic_targets([_sample(np.ones((33, 33)), [label], [True])], 6, (9, 9))
    with pytest.raises(ValueError, match='other.jpg has none'):
        build_panoptic_targets([DetDataSample(metainfo=dict(img_path='other.jpg'))], 6, (9, 9))
