"""The mini dataset on disk is valid COCO panoptic data, and its dataset class reads it."""
import json

import cv2
import numpy as np
import pytest
from mmdet.registry import DATASETS

from remax_mm.datasets import crowded_drawing
from remax_mm.datasets.mini_drawing import STUFF, THINGS, draw_scene, draw_thing
from remax_mm.datasets.mini_panoptic import SETTINGS_FILE, MiniPanopticMapDataset, write_mini_panoptic

NUM_TRAIN, NUM_VAL = 24, 3


@pytest.fixture(scope='module')
def mini(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'mini'
    assert write_mini_panoptic(folder, NUM_TRAIN, NUM_VAL, size=97)
    return folder


def _content(folder, split):
    return json.loads((folder / 'annotations' / f'panoptic_{split}.json').read_text())


def _bytes(folder):
    return {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob('*') if path.is_file()}


def test_write_mini_panoptic__json_agrees_with_the_pngs(mini):
    for split, count in (('train', NUM_TRAIN), ('val', NUM_VAL)):
        content = _content(mini, split)
        assert len(content['images']) == len(content['annotations']) == count
        known = {category['id'] for category in content['categories']}
        for image, annotation in zip(content['images'], content['annotations']):
            assert image['id'] == annotation['image_id']
            photo = cv2.imread(str(mini / 'images' / split / image['file_name']))
            assert photo.shape == (image['height'], image['width'], 3) == (97, 97, 3)
            folder = mini / 'annotations' / f'panoptic_{split}'
            png = cv2.imread(str(folder / annotation['file_name'])).astype(int)
            ids = png[..., 2] + 256 * png[..., 1] + 256**2 * png[..., 0]
            assert set(np.unique(ids)) - {0} == {segment['id'] for segment in annotation['segments_info']}
            for segment in annotation['segments_info']:
                rows, columns = np.nonzero(ids == segment['id'])
                left, top, width, height = segment['bbox']
                assert segment['area'] == len(rows)
                assert (rows.min(), rows.max()) == (top, top + height - 1)
                assert (columns.min(), columns.max()) == (left, left + width - 1)
                assert segment['category_id'] in known and segment['iscrowd'] in (0, 1)


def test_write_mini_panoptic__categories(mini):
    categories = _content(mini, 'train')['categories']
    assert [c['name'] for c in categories if c['isthing']] == list(THINGS)
    assert [c['name'] for c in categories if not c['isthing']] == list(STUFF)
    ids = [c['id'] for c in categories]
    assert len(set(ids)) == 12 and max(ids) > 12  # gaps, as in COCO


def test_write_mini_panoptic__variety(mini):
    """All classes, crowd regions and unlabeled pixels occur; a stuff class has at most one segment."""
    content = _content(mini, 'train')
    isthing = {c['id']: c['isthing'] for c in content['categories']}
    seen, crowds, unlabeled = set(), 0, 0
    for annotation in content['annotations']:
        segments = annotation['segments_info']
        seen |= {segment['category_id'] for segment in segments}
        crowds += sum(segment['iscrowd'] for segment in segments)
        unlabeled += 97 * 97 - sum(segment['area'] for segment in segments)
        stuff = [segment['category_id'] for segment in segments if not isthing[segment['category_id']]]
        assert len(stuff) == len(set(stuff)) <= 4
        things = [s for s in segments if isthing[s['category_id']] and not s['iscrowd']]
        assert len(things) <= 7
    assert seen == set(isthing) and crowds > 0 and unlabeled > 0


def test_write_mini_panoptic__same_settings_same_bytes(mini, tmp_path):
    write_mini_panoptic(tmp_path / 'again', NUM_TRAIN, NUM_VAL, size=97)
    assert _bytes(tmp_path / 'again') == _bytes(mini)
    write_mini_panoptic(tmp_path / 'other', 1, 1, size=97, seed=1)
    write_mini_panoptic(tmp_path / 'less', 1, 1, size=97)
    name = 'images/train/000000000001.jpg'
    assert _bytes(tmp_path / 'less')[name] == _bytes(mini)[name] != _bytes(tmp_path / 'other')[name]


def test_write_mini_panoptic__existing_files_are_kept(mini, tmp_path):
    before = _bytes(mini)
    assert not write_mini_panoptic(mini, NUM_TRAIN, NUM_VAL, size=97)
    with pytest.raises(FileExistsError, match="'seed': 5.*'seed': 0"):
        write_mini_panoptic(mini, NUM_TRAIN, NUM_VAL, size=97, seed=5)
    assert _bytes(mini) == before

    other = tmp_path / 'other'
    other.mkdir()
    (other / 'notes.txt').write_text('text')
    with pytest.raises(FileExistsError, match=f'other.*no {SETTINGS_FILE}'):
        write_mini_panoptic(other, 1, 1)
    assert list(_bytes(other)) == ['notes.txt']


def test_write_mini_panoptic__continues_an_interrupted_run(tmp_path, monkeypatch):
    with monkeypatch.context() as patch:
        patch.setattr('remax_mm.panoptic_format.split_writer.describe_segments', lambda *args: 1 / 0)
        with pytest.raises(ZeroDivisionError):
            write_mini_panoptic(tmp_path, 2, 1, size=65)
    assert (tmp_path / 'images' / 'train' / '000000000001.jpg').exists()
    assert write_mini_panoptic(tmp_path, 2, 1, size=65)
    assert len(_content(tmp_path, 'train')['images']) == 2
    assert not write_mini_panoptic(tmp_path, 2, 1, size=65)


def test_write_mini_panoptic__test_split_is_added(tmp_path):
    wanted = dict(num_train=2, num_val=1, size=65)
    write_mini_panoptic(tmp_path / 'mini', **wanted)
    before = _bytes(tmp_path / 'mini')
    del before[SETTINGS_FILE]

    # The other splits keep their files, and those of the new one are the same as in a new folder.
    assert write_mini_panoptic(tmp_path / 'mini', **wanted, num_test=2)
    after = _bytes(tmp_path / 'mini')
    assert {name: after[name] for name in before} == before
    assert len(_content(tmp_path / 'mini', 'test')['images']) == 2
    write_mini_panoptic(tmp_path / 'new', **wanted, num_test=2)
    assert _bytes(tmp_path / 'new') == after

    # It has its own images.
    assert len({after[name] for name in after if name.endswith('.jpg')}) == 5

    # Nothing to do with the same split or none; another size of it is another dataset.
    assert not write_mini_panoptic(tmp_path / 'mini', **wanted)
    assert not write_mini_panoptic(tmp_path / 'mini', **wanted, num_test=2)
    with pytest.raises(FileExistsError, match="'test': 3.*'test': 2"):
        write_mini_panoptic(tmp_path / 'mini', **wanted, num_test=3)
    assert _bytes(tmp_path / 'mini') == after


def test_write_mini_panoptic__settings_of_an_older_version(tmp_path):
    write_mini_panoptic(tmp_path, 1, 1, size=65)
    settings = json.loads((tmp_path / SETTINGS_FILE).read_text())
    assert settings.pop('test') == 0
    (tmp_path / SETTINGS_FILE).write_text(json.dumps(settings))
    assert not write_mini_panoptic(tmp_path, 1, 1, size=65)
    assert write_mini_panoptic(tmp_path, 1, 1, size=65, num_test=1)


@pytest.mark.parametrize(
    'wrong',
    [dict(num_train=0), dict(num_val=0),
     dict(num_test=-1), dict(size=63),
     dict(seed=-1)])
def test_write_mini_panoptic__number_out_of_range(tmp_path, wrong):
    with pytest.raises(ValueError, match='at least'):
        write_mini_panoptic(tmp_path / 'mini', **wrong)
    assert not (tmp_path / 'mini').exists()


def test_mini_panoptic_dataset__reads_what_was_written(mini):
    data = DATASETS.build(
        dict(
            type='MiniPanopticMapDataset',
            data_root=str(mini),
            ann_file='annotations/panoptic_train.json',
            data_prefix=dict(img='images/train/', seg='annotations/panoptic_train/'),
            pipeline=[
                dict(type=step) for step in ('LoadImageFromFile', 'LoadPanopticMap', 'PackPanopticInputs')
            ]))
    assert isinstance(data, MiniPanopticMapDataset) and len(data) == NUM_TRAIN
    assert len(data.metainfo['classes']) == len(data.metainfo['palette']) == 12
    for i in range(NUM_TRAIN):
        sample = data[i]['data_samples']
        assert len(sample.gt_segments) == len([s for s in sample.segments_info if not s['iscrowd']])
        assert sample.gt_panoptic_seg.segment_map.max() == len(sample.gt_segments)


@pytest.mark.parametrize('name', THINGS)
def test_draw_thing__mask_is_where_the_image_changes(name):
    image = np.full((97, 97, 3), 40.0)
    mask = draw_thing(np.random.default_rng(0), image, THINGS[name], np.array([48.0, 40.0]), 25.0)
    changed = (abs(image - 40) > 1).any(-1)
    # Edges are blended over about one pixel, and over more at the corners of a star.
    mask_and_rim = cv2.dilate(mask.astype(np.uint8), np.ones((5, 5))) > 0
    core = cv2.erode(mask.astype(np.uint8), np.ones((5, 5))) > 0
    assert not changed[~mask_and_rim].any()
    assert changed[core].mean() > 0.9
    assert 0.2 * np.pi * 25**2 < mask.sum() < 1.1 * np.pi * 25**2


def test_draw_thing__partly_and_completely_outside():
    for center in ((0, 0), (96, 50), (-60, 20), (50, 200)):
        image = np.zeros((97, 97, 3))
        mask = draw_thing(np.random.default_rng(0), image, THINGS['disc'], np.array(center, float), 20.3)
        rows, columns = np.mgrid[:97, :97]
        assert np.array_equal(mask, np.hypot(rows - center[1], columns - center[0]) < 20.3)


def test_draw_scene__segments_do_not_overlap():
    for seed in range(5):
        scene = draw_scene(np.random.default_rng(seed), 65)
        assert scene.image.dtype == np.uint8 and scene.image.shape == (65, 65, 3)
        assert sum(segment.mask.astype(int) for segment in scene.segments).max() == 1


@pytest.fixture(scope='module')
def crowded(tmp_path_factory):
    folder = tmp_path_factory.mktemp('data') / 'crowded'
    assert write_mini_panoptic(folder, 6, 1, size=257, preset='crowded')
    return folder


def test_crowded__many_classes_and_segments(crowded):
    content = _content(crowded, 'train')
    isthing = {category['id']: category['isthing'] for category in content['categories']}
    assert len(isthing) == 44 and sum(isthing.values()) == 35
    small = []
    for annotation in content['annotations']:
        assert 15 <= len(annotation['segments_info']) <= 60
        small += [segment['area'] < 32**2 for segment in annotation['segments_info']]
    assert np.mean(small) > 0.5


def test_crowded__things_hide_parts_of_others_but_none_completely():
    """At least 40 % of each thing stays visible, and many things are partly hidden."""
    shares = []

    class Recording(crowded_drawing._CrowdedCanvas):

        def finish(self):
            shares.extend((self.owner == i).sum() / area for i, area in self.full_area.items())
            return super().finish()

    rng = np.random.default_rng(0)
    canvas = Recording(rng, 257, crowded_drawing.CROWDED_THINGS, crowded_drawing.CROWDED_STUFF, 1 / 2000, 0.4)
    canvas.add_things(55)
    canvas.finish()
    assert len(shares) == 55 and min(shares) >= 0.4 and np.mean(np.array(shares) < 1) > 0.1


def test_crowded__the_number_of_processes_changes_no_byte(crowded, tmp_path):
    write_mini_panoptic(tmp_path, 6, 1, size=257, preset='crowded', processes=2)
    assert _bytes(tmp_path) == _bytes(crowded)


def test_crowded__dataset_class_reads_it(crowded):
    data = DATASETS.build(
        dict(
            type='CrowdedPanopticMapDataset',
            data_root=str(crowded),
            ann_file='annotations/panoptic_train.json',
            data_prefix=dict(img='images/train/', seg='annotations/panoptic_train/'),
            pipeline=[dict(type=step) for step in ('LoadImageFromFile', 'LoadPanopticMap')]))
    categories = _content(crowded, 'train')['categories']
    assert data.metainfo['classes'] == tuple(category['name'] for category in categories)
    assert len(set(data.metainfo['palette'])) == 44
    assert len(data) == 6 and data[0]['img'].shape == (257, 257, 3)


def test_presets__other_than_that_of_the_folder_is_an_error(crowded):
    with pytest.raises(FileExistsError, match="'mini'.*'crowded'"):
        write_mini_panoptic(crowded, 6, 1, size=257)
