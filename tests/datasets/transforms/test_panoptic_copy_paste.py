"""Pasting against a loop over pixels, its invariants, and the transform in datasets and data loaders."""
from functools import partial

import numpy as np
import pytest
from mmdet.registry import DATASETS, TRANSFORMS
from mmengine.dataset import pseudo_collate, worker_init_fn
from torch.utils.data import DataLoader

from remax_mm.datasets.transforms.panoptic_copy_paste import SegmentedImage, choose_segments, paste_segments
from remax_mm.panoptic_format import BrokenFileError

NUM_THINGS = 4  # labels below are things


@pytest.fixture(autouse=True)
def _numpy_seed():
    np.random.seed(0)


def _random_image(seed, num_segments=9, size=(24, 31)):
    """Blocks of segments and void, with rows without a pixel and several stuff segments of one class."""
    rng = np.random.default_rng(seed)
    height, width = size
    blocks = rng.integers(0, num_segments + 1, (8, 8))
    index = blocks[np.arange(height)[:, None] * 8 // height, np.arange(width) * 8 // width]
    labels = rng.integers(0, 8, num_segments)
    return SegmentedImage(
        image=rng.integers(0, 256, (height, width, 3), dtype=np.uint8),
        segment_map=index.astype(np.uint8 if num_segments < 256 else np.uint16),
        labels=labels,
        is_thing=labels < NUM_THINGS)


def _segments(image):
    """Sorted (label, pixels) of each thing and each stuff class, independent of the numbering."""
    things, stuff = [], {}
    for row, (label, is_thing) in enumerate(zip(image.labels.tolist(), image.is_thing.tolist())):
        pixels = set(np.flatnonzero(image.segment_map == row + 1).tolist())
        if is_thing:
            things.append((label, pixels))
        else:
            stuff[label] = stuff.get(label, set()) | pixels
    segments = things + list(stuff.items())
    return sorted((label, sorted(pixels)) for label, pixels in segments if pixels)


def _paste_by_loop(target, source, chosen):
    """Paste pixel by pixel; a pixel belongs to (label, image, row) of a thing or to (label) of stuff."""
    image, owner = target.image.copy(), {}
    for y in range(image.shape[0]):
        for x in range(image.shape[1]):
            for name, origin in (('source', source), ('target', target)):
                row = int(origin.segment_map[y, x]) - 1
                if row < 0 or (name == 'source' and not chosen[row]):
                    continue
                if name == 'source':
                    image[y, x] = source.image[y, x]
                label = int(origin.labels[row])
                key = (label, name, row) if origin.is_thing[row] else (label, )
                owner.setdefault(key, []).append(y * image.shape[1] + x)
                break
    return image, sorted((key[0], pixels) for key, pixels in owner.items())


def _choose(source, seed):
    return np.random.default_rng(seed).random(len(source.labels)) < 0.5


@pytest.mark.parametrize('seed', range(10))
def test_paste_segments__equals_loop(seed):
    target, source = _random_image(seed), _random_image(seed + 100, num_segments=14)
    chosen = _choose(source, seed)
    image, segments = _paste_by_loop(target, source, chosen)
    result = paste_segments(target, source, chosen)
    assert np.array_equal(result.image, image)
    assert _segments(result) == segments
    assert (result.is_thing == (result.labels < NUM_THINGS)).all()


@pytest.mark.parametrize('seed', range(10))
def test_paste_segments__map_and_table_agree(seed):
    target, source = _random_image(seed, 5 + seed * 40), _random_image(seed + 100)
    result = paste_segments(target, source, _choose(source, seed))
    areas = np.bincount(result.segment_map.ravel(), minlength=len(result.labels) + 1)
    assert len(areas) == len(result.labels) + 1 == len(result.is_thing) + 1
    assert (areas[1:] > 0).all() and areas.sum() == result.segment_map.size
    stuff = result.labels[~result.is_thing].tolist()
    assert len(stuff) == len(set(stuff))
    assert result.labels.dtype == np.int64 and result.is_thing.dtype == bool
    assert result.segment_map.dtype == (np.uint8 if len(result.labels) < 256 else np.uint16)


@pytest.mark.parametrize('seed', range(5))
def test_paste_segments__void_is_never_pasted(seed):
    target, source = _random_image(seed), _random_image(seed + 100)
    result = paste_segments(target, source, np.ones(len(source.labels), bool))
    void = source.segment_map == 0
    assert np.array_equal(result.image[void], target.image[void])
    assert np.array_equal(result.image[~void], source.image[~void])
    assert np.array_equal(result.segment_map == 0, void & (target.segment_map == 0))
    # A source without segments, such as padding, changes only the table.
    nothing = source._replace(segment_map=np.zeros_like(source.segment_map))
    result = paste_segments(target, nothing, np.ones(len(source.labels), bool))
    assert np.array_equal(result.image, target.image) and _segments(result) == _segments(target)


def test_paste_segments__by_hand():
    target = SegmentedImage(
        image=np.zeros((2, 4, 3), np.uint8),
        segment_map=np.array([[1, 1, 2, 3], [0, 4, 4, 3]], np.uint8),
        labels=np.array([5, 0, 6, 1]),  # stuff 5, thing 0 of one pixel, stuff 6, thing 1
        is_thing=np.array([False, True, False, True]))
    source = SegmentedImage(
        image=np.full((2, 4, 3), 9, np.uint8),
        segment_map=np.array([[0, 0, 1, 2], [0, 2, 3, 3]], np.uint8),
        labels=np.array([0, 5, 7]),  # thing 0, stuff 5, stuff 7
        is_thing=np.array([True, False, False]))
    result = paste_segments(target, source, np.array([True, True, False]))
    # Thing 0 of the target is covered, its stuff 5 has grown, and its stuff 6 has one pixel left.
    assert result.segment_map.tolist() == [[1, 1, 4, 1], [0, 1, 3, 2]]
    assert result.labels.tolist() == [5, 6, 1, 0] and result.is_thing.tolist() == [False, False, True, True]
    assert result.image[..., 0].tolist() == [[0, 0, 9, 9], [0, 9, 0, 0]]
    assert not target.image.any() and target.segment_map[0, 2] == 2  # unchanged


@pytest.mark.parametrize('count, dtype', [(127, np.uint8), (128, np.uint8), (129, np.uint16)])
def test_paste_segments__more_than_255_segments(count, dtype):
    """127 things of the target on the left, 127, 128 or 129 of the source on the right."""
    numbers = np.arange(1, 130, dtype=np.uint8)[None]
    blank = np.zeros((1, 129), np.uint8)
    image = np.zeros((1, 258, 3), np.uint8)
    target = SegmentedImage(image, np.concatenate([numbers * (numbers <= 127), blank], 1), np.arange(127),
                            np.ones(127, bool))
    source = SegmentedImage(image, np.concatenate([blank, numbers * (numbers <= count)], 1), np.arange(count),
                            np.ones(count, bool))
    result = paste_segments(target, source, np.ones(count, bool))
    assert result.segment_map.dtype == dtype and len(result.labels) == 127 + count
    assert result.segment_map[result.segment_map > 0].tolist() == list(range(1, 128 + count))


@pytest.mark.parametrize('view', [lambda x: x[:, ::-1], lambda x: x[3:17, 5:20]], ids=['flip', 'crop'])
@pytest.mark.parametrize('seed', range(5))
def test_paste_segments__commutes_with_flip_and_crop(seed, view):
    target, source = _random_image(seed), _random_image(seed + 100)
    chosen = _choose(source, seed)

    def change(image):
        return image._replace(image=view(image.image), segment_map=view(image.segment_map))

    late = change(paste_segments(target, source, chosen))
    early = paste_segments(change(target), change(source), chosen)
    assert np.array_equal(early.image, late.image)
    assert _segments(early) == _segments(late)


def test_paste_segments__images_without_segments():
    empty = _random_image(0, num_segments=0)
    full = _random_image(1)
    result = paste_segments(empty, full, np.ones(9, bool))
    assert _segments(result) == _segments(full)
    result = paste_segments(full, empty, np.zeros(0, bool))
    assert _segments(result) == _segments(full) and np.array_equal(result.image, full.image)


def test_choose_segments__number_of_stuff_classes_is_uniform():
    labels = np.array([0, 5, 6, 1, 5, 7])  # two segments of stuff 5
    is_thing = labels < NUM_THINGS
    counts, stuff = np.zeros(4, int), dict.fromkeys((5, 6, 7), 0)
    for _ in range(4000):
        chosen = choose_segments(labels, is_thing)
        assert chosen[is_thing].all() and chosen[1] == chosen[4]
        kept = set(labels[chosen & ~is_thing].tolist())
        counts[len(kept)] += 1
        for label in kept:
            stuff[label] += 1
    assert (abs(counts - 1000) < 4 * (4000 * 0.25 * 0.75)**0.5).all()
    assert all(abs(count - 2000) < 4 * 1000**0.5 for count in stuff.values())


def test_choose_segments__without_stuff():
    assert choose_segments(np.array([0, 1]), np.array([True, True])).tolist() == [True, True]
    assert choose_segments(np.zeros(0, int), np.zeros(0, bool)).shape == (0, )


# The transform, on the small dataset of conftest.py

LOAD = [dict(type='LoadImageStrict'), dict(type='LoadPanopticMap')]
CROP = [
    dict(type='RandomPad', size=(24, 20)),
    dict(type='RandomCrop', crop_size=(24, 20)),
    dict(type='RandomFlip', prob=0.5)
]
PASTE = dict(type='PanopticCopyPaste', partner_pipeline=[*LOAD, *CROP])


def _dataset(tiny_set, steps=(*LOAD, *CROP, PASTE), **kwargs):
    return DATASETS.build(
        dict(type='CocoPanopticMapDataset', **tiny_set.arguments(pipeline=list(steps), **kwargs)))


def test_panoptic_copy_paste__pixels_are_those_of_the_two_images(tiny_set, monkeypatch):
    dataset = _dataset(tiny_set)
    paste = dataset.pipeline.transforms[-1]
    seen, load = [], paste._load_partner
    monkeypatch.setattr(paste, '_load_partner', lambda results: seen.append(
        (dict(results), load(results))) or seen[-1][1])
    names = set()
    for i in range(40):
        results = dataset[i % 4]
        before, partner = seen[-1]
        assert partner['img_id'] != before['img_id'] == results['img_id']
        names.add((before['img_id'], partner['img_id']))
        from_partner = (results['img'] != before['img']).any(-1)
        assert np.array_equal(results['img'][from_partner], partner['img'][from_partner])
        assert (partner['gt_seg_map'][from_partner] > 0).all()
        areas = np.bincount(results['gt_seg_map'].ravel())
        assert len(areas) == len(results['gt_segment_labels']) + 1 and (areas[1:] > 0).all()
        # All things of the partner are completely visible.
        for row in np.flatnonzero(partner['gt_segment_is_thing']):
            mask = partner['gt_seg_map'] == row + 1
            index = np.unique(results['gt_seg_map'][mask])
            assert len(index) == mask.any()
            for i in index:
                assert np.array_equal(results['gt_seg_map'] == i, mask)
                assert results['gt_segment_labels'][i - 1] == partner['gt_segment_labels'][row]
                assert np.array_equal(results['img'][mask], partner['img'][mask])
    assert names == {(a, b) for a in (1, 2, 3, 4) for b in (1, 2, 3, 4) if a != b}


def test_panoptic_copy_paste__packed_and_filtered(tiny_set):
    """`filter_cfg` keeps the images 1 and 2; partners are from these, with and without serialization."""
    for serialize in (True, False):
        np.random.seed(0)
        dataset = _dataset(
            tiny_set, (*LOAD, *CROP, PASTE, dict(type='PackPanopticInputs')),
            filter_cfg=dict(filter_empty_gt=True),
            serialize_data=serialize)
        assert len(dataset) == 2
        for _ in range(5):
            packed = dataset[1]  # 16x24 pixels of stuff and padding; the partner adds segments
            sample = packed['data_samples']
            assert packed['inputs'].shape == (3, 20, 24) and sample.img_id == 2
            assert sample.gt_panoptic_seg.segment_map.max() == len(sample.gt_segments) > 1


def _numbers(batch):
    return [image.sum().item() for image in batch['inputs']]


def _epochs(dataset, seed, rank=0, num_workers=2):
    init = partial(worker_init_fn, num_workers=num_workers, rank=rank, seed=seed)
    loader = DataLoader(
        dataset,
        batch_size=2,
        num_workers=num_workers,
        collate_fn=pseudo_collate,
        worker_init_fn=init,
        persistent_workers=True)
    return [[_numbers(batch) for batch in loader] for _ in range(2)]


def test_panoptic_copy_paste__seeds_workers_and_ranks(tiny_set):
    steps = (*LOAD, *CROP, PASTE, dict(type='PackPanopticInputs'))
    # The same image eight times: differences are from random numbers only.
    dataset = _dataset(tiny_set, steps)
    once = type('Repeated', (), dict(__len__=lambda self: 8, __getitem__=lambda self, i: dataset[0]))()
    first = _epochs(once, seed=0)
    assert first == _epochs(once, seed=0)
    assert first[0] != first[1]  # the second epoch continues the random numbers
    by_worker = [first[0][::2], first[0][1::2]]
    assert by_worker[0] != by_worker[1]
    other_rank, other_seed = _epochs(once, seed=0, rank=1), _epochs(once, seed=10)
    assert first[0] != other_rank[0] and first[0] != other_seed[0]


def test_panoptic_copy_paste__broken_partner(tiny_set):
    dataset = _dataset(tiny_set, indices=[0, 2])
    (tiny_set.root / 'images' / '003.png').write_bytes(b'not an image')
    for index in (0, 1):  # as the partner and as the image
        with pytest.raises(BrokenFileError, match='003.png cannot be decoded'):
            dataset[index]

    # With `skip_broken`, another image replaces one with a broken partner.
    dataset = _dataset(tiny_set, skip_broken=True)
    assert all(dataset[0]['img_id'] != 3 for _ in range(20))
    assert dataset.num_skipped > 0


def test_panoptic_copy_paste__partner_with_another_size(tiny_set):
    dataset = _dataset(
        tiny_set, (*LOAD, *CROP, dict(type='PanopticCopyPaste', partner_pipeline=LOAD)), indices=[0, 1])
    with pytest.raises(
            ValueError, match=r'partner .*002.png .* \(20, 24, 3\) of .*001.png, but got \(16, 24, 3\)'):
        dataset[0]


def test_panoptic_copy_paste__no_partner(tiny_set):
    with pytest.raises(ValueError, match='two images .* but got one with 1 image'):
        _dataset(tiny_set, indices=1)[0]
    record = _dataset(tiny_set, LOAD)[0]
    record.pop('dataset')
    with pytest.raises(ValueError, match='PanopticMapDataset adds it in training.*got none'):
        TRANSFORMS.build(PASTE)(record)
    with pytest.raises(ValueError, match='got none'):
        _dataset(tiny_set, test_mode=True)[0]
