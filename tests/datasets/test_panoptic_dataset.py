"""Reading of COCO panoptic annotations: labels by name, all segments, and errors that name the file."""
import shutil

import pytest
from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import DATASETS
from mmengine.logging import MMLogger

from remax_mm.datasets import MiniPanopticMapDataset, write_mini_panoptic
from remax_mm.datasets.panoptic_dataset import PanopticMapDataset


def _records(tiny_set, **kwargs):
    data = PanopticMapDataset(**tiny_set.arguments(**kwargs))
    return {data.get_data_info(i)['img_id']: data.get_data_info(i) for i in range(len(data))}


def test_dataset__record(tiny_set):
    record, ids = _records(tiny_set)[1], tiny_set.ids[1]
    assert record['img_path'] == str(tiny_set.root / 'images' / '001.png')
    assert record['seg_map_path'] == str(tiny_set.root / 'png' / '001_panoptic.png')
    assert (record['height'], record['width']) == (20, 30)
    assert record['segments_info'] == [
        dict(id=300000, category=3, is_thing=False, iscrowd=False, area=int((ids == 300000).sum())),
        dict(
            id=65536 * 7 + 256 * 5 + 3,
            category=2,
            is_thing=False,
            iscrowd=False,
            area=int((ids == 65536 * 7 + 256 * 5 + 3).sum())),
        dict(id=255, category=0, is_thing=True, iscrowd=False, area=int((ids == 255).sum())),
        dict(id=256, category=0, is_thing=True, iscrowd=False, area=int((ids == 256).sum())),
        dict(id=77, category=1, is_thing=True, iscrowd=False, area=int((ids == 77).sum())),
        dict(id=1000, category=1, is_thing=True, iscrowd=True, area=int((ids == 1000).sum())),
    ]


def test_dataset__built_from_the_registry(tiny_set):
    data = DATASETS.build(dict(type='PanopticMapDataset', **tiny_set.arguments()))
    assert len(data) == 4 and data.metainfo['classes'] == ('cat', 'dog', 'sky', 'grass')
    assert sorted(data.get_cat_ids(0)) == [0, 0, 1, 1, 2, 3]


def test_dataset__filter(tiny_set):
    assert sorted(_records(tiny_set)) == [1, 2, 3, 4]
    assert sorted(_records(tiny_set, filter_cfg=dict(filter_empty_gt=False))) == [1, 2, 3, 4]
    # Images with only stuff are kept; images with only crowd regions, or without segments, are removed.
    assert sorted(_records(tiny_set, filter_cfg=dict(filter_empty_gt=True))) == [1, 2]
    assert sorted(_records(tiny_set, filter_cfg=dict(min_size=12))) == [1, 2, 3]
    assert sorted(_records(tiny_set, test_mode=True, filter_cfg=dict(min_size=12))) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="filter_cfg.*'min_sise'"):
        _records(tiny_set, filter_cfg=dict(min_sise=12))


def test_dataset__indices_and_lazy_init(tiny_set):
    assert sorted(_records(tiny_set, indices=2)) == [1, 2]
    lazy = PanopticMapDataset(**tiny_set.arguments(lazy_init=True))
    lazy.full_init()
    assert len(lazy) == 4


def test_dataset__test_images_without_ground_truth(tiny_set):
    tiny_set.rewrite(lambda content: content.pop('annotations'))
    records = _records(tiny_set, test_mode=True, data_prefix=dict(img='images/'))
    assert [record['seg_map_path'] for record in records.values()] == [None] * 4
    assert records[1]['segments_info'] == []
    with pytest.raises(ValueError, match='`seg` of `data_prefix` for training on .*panoptic.json'):
        _records(tiny_set, data_prefix=dict(img='images/'))


def test_dataset__png_name_from_the_photo(tiny_set):

    def drop_names(content):
        for annotation in content['annotations']:
            del annotation['file_name']

    tiny_set.rewrite(drop_names)
    assert _records(tiny_set)[2]['seg_map_path'] == str(tiny_set.root / 'png' / '002.png')


@pytest.mark.parametrize('all_things', [True, False])
def test_dataset__only_things_or_only_stuff(tiny_set, all_things):
    names = ('cat', 'dog', 'sky', 'grass')
    things, stuff = (names, ()) if all_things else ((), names)

    def set_kind(content):
        for category in content['categories']:
            category['isthing'] = int(all_things)

    tiny_set.rewrite(set_kind)
    metainfo = dict(classes=things + stuff, thing_classes=things, stuff_classes=stuff)
    records = _records(tiny_set, metainfo=metainfo, filter_cfg=dict(filter_empty_gt=True))
    assert sorted(records) == [1, 2]
    assert {segment['is_thing'] for segment in records[1]['segments_info']} == {all_things}


@pytest.mark.parametrize('missing, message', [
    ('panoptic.json', 'annotation file .*panoptic.json'),
    ('images', 'image folder .*images'),
    ('png', 'folder of panoptic PNGs .*png'),
])
def test_dataset__missing_files(tiny_set, missing, message):
    path = tiny_set.root / missing
    shutil.rmtree(path) if path.is_dir() else path.unlink()
    with pytest.raises(FileNotFoundError, match=message):
        _records(tiny_set)


def _edit_category(which, **values):

    def edit(content):
        for category in content['categories']:
            if category['name'] == which:
                category.update(values)

    return edit


def _drop_isthing(content):
    del content['categories'][1]['isthing']


@pytest.mark.parametrize('edit, message', [
    (lambda c: c['annotations'][1]['segments_info'][0].update(category_id=99),
     r'(?s)panoptic.json, but .*: segment 12 of image 2 \(002_panoptic.png\) has the unknown category 99'),
    (_drop_isthing, r"(?s)panoptic.json.*categories\[1\].isthing \(id 7, name 'dog'\) is missing"),
    (_edit_category('dog', isthing=0), "agree with .*differs for 'dog'"),
    (_edit_category('sky', isthing=1), "agree with .*differs for 'sky'"),
    (_edit_category('dog',
                    name='wolf'), "panoptic.json.* missing are 'dog', and not in `metainfo` are 'wolf'"),
    (lambda c: c['categories'].append(dict(id=4, name='cow', isthing=1)),
     "missing are none, and not in `metainfo` are 'cow'"),
    (lambda c: c['categories'].append(dict(id=4, name='dog', isthing=1)),
     "(?s)panoptic.json.*2 entries of `categories` have the name 'dog'"),
    (lambda c: c.pop('categories'),
     r'(?s)panoptic.json, but it has an error:\s*key_missing: categories is missing'),
])
def test_dataset__json_contradicts_the_class_list(tiny_set, edit, message):
    tiny_set.rewrite(edit)
    with pytest.raises(ValueError, match=message):
        _records(tiny_set)


def test_dataset__invalid_class_list(tiny_set):
    classes = dict(thing_classes=('cat', 'dog'), stuff_classes=('sky', 'grass'))
    with pytest.raises(ValueError, match='`thing_classes` followed by `stuff_classes`'):
        _records(tiny_set, metainfo=dict(classes=('sky', 'grass', 'cat', 'dog'), **classes))
    with pytest.raises(
            ValueError,
            match='all of classes, thing_classes, stuff_classes in `metainfo` .*got only classes'):
        _records(tiny_set, metainfo=dict(classes=('cat', 'dog', 'sky', 'grass')))


def _from_file(tiny_set, **kwargs):
    return PanopticMapDataset(**tiny_set.arguments(metainfo=None, **kwargs))


def test_dataset__classes_of_the_file(tiny_set):
    """Things first, by category id within things and within stuff: cat 3, dog 7, sky 150, grass 200."""
    data = _from_file(tiny_set)
    assert data.metainfo['classes'] == ('cat', 'dog', 'sky', 'grass')
    assert data.metainfo['thing_classes'] == ('cat', 'dog')
    assert data.metainfo['stuff_classes'] == ('sky', 'grass')
    assert 'palette' not in data.metainfo
    assert [data.get_data_info(i) for i in range(4)] == list(_records(tiny_set).values())

    # The order of the file does not matter.
    tiny_set.rewrite(lambda content: content['categories'].reverse())
    again = _from_file(tiny_set)
    assert again.metainfo == data.metainfo and again.get_data_info(0) == data.get_data_info(0)


def test_dataset__classes_of_the_file_are_logged(tiny_set):
    logger = MMLogger.get_instance('test_panoptic_dataset', log_file=str(tiny_set.root / 'log'))
    logger.info('start')
    _from_file(tiny_set)
    assert 'Read 4 images with 2 thing and 2 stuff classes from' in (tiny_set.root / 'log').read_text()


def test_dataset__palette_of_the_file(tiny_set):

    def add_colors(content):
        for number, category in enumerate(content['categories']):
            category['color'] = [number, 0, 9]

    tiny_set.rewrite(add_colors)
    # In the file: grass, dog, cat, sky.
    assert _from_file(tiny_set).metainfo['palette'] == [(2, 0, 9), (1, 0, 9), (3, 0, 9), (0, 0, 9)]
    custom = PanopticMapDataset(**tiny_set.arguments(metainfo=dict(palette=[(5, 5, 5)] * 4)))
    assert custom.metainfo['palette'] == [(5, 5, 5)] * 4 and custom.metainfo['classes'][0] == 'cat'


def test_dataset__palette_of_a_known_dataset(tmp_path):
    """The classes of the mini dataset, whose JSON has no colors."""
    write_mini_panoptic(tmp_path, 1, 1, 64)
    data = PanopticMapDataset(
        data_root=str(tmp_path),
        ann_file='annotations/panoptic_val.json',
        data_prefix=dict(img='images/val', seg='annotations/panoptic_val'))
    known = MiniPanopticMapDataset.METAINFO
    assert dict(zip(data.metainfo['classes'],
                    data.metainfo['palette'])) == dict(zip(known['classes'], known['palette']))


def test_dataset__classes_of_the_file_before_full_init(tiny_set):
    data = _from_file(tiny_set, lazy_init=True)
    assert data.metainfo['classes'] == ('cat', 'dog', 'sky', 'grass')
    data.metainfo['classes'] = ()  # a copy
    data.full_init()
    assert len(data) == 4 and data.metainfo['classes'] == ('cat', 'dog', 'sky', 'grass')


def test_dataset__metainfo_in_another_order(tiny_set):
    metainfo = dict(
        classes=('dog', 'cat', 'grass', 'sky'), thing_classes=('dog', 'cat'), stuff_classes=('grass', 'sky'))
    records = _records(tiny_set, metainfo=metainfo)
    assert [segment['category'] for segment in records[1]['segments_info']] == [2, 3, 1, 1, 0, 0]


def test_dataset__string_ids(tiny_set):

    def rename(content):
        for image, annotation in zip(content['images'], content['annotations']):
            image['id'] = annotation['image_id'] = f'yard_{image["id"]}'

    tiny_set.rewrite(rename)
    assert list(_records(tiny_set)) == ['yard_1', 'yard_2', 'yard_3', 'yard_4']


@pytest.mark.parametrize('edit, message', [
    (lambda c: c['images'].append(c['images'][1]), '2 entries of `images` have the id 2'),
    (lambda c: c['annotations'].append(c['annotations'][0]),
     '2 entries of `annotations` have the image_id 1'),
    (lambda c: c['categories'][1].update(id=3), '2 entries of `categories` have the id 3'),
    (lambda c: c['images'][2].pop('height'), r"images\[2\].height \(id 3, file_name '003.png'\) is missing"),
    (lambda c: c['annotations'][2].pop('segments_info'),
     r"annotations\[2\].segments_info \(image_id 3, file_name '003_panoptic.png'\) is missing"),
])
def test_dataset__repeated_or_incomplete_entries(tiny_set, edit, message):
    tiny_set.rewrite(edit)
    with pytest.raises(ValueError, match=f'(?s)panoptic.json, .*{message}'):
        _from_file(tiny_set)


def test_dataset__annotation_of_an_unlisted_image(tiny_set):
    logger = MMLogger.get_instance('test_panoptic_dataset_2', log_file=str(tiny_set.root / 'log'))
    logger.info('start')
    tiny_set.rewrite(lambda content: content['images'].pop(1))
    assert list(_records(tiny_set)) == [1, 3, 4]
    assert 'WARNING' in (tiny_set.root / 'log').read_text()
    assert 'annotations of images that are not in `images`' in (tiny_set.root / 'log').read_text()
    assert 'panoptic.json: 2' in (tiny_set.root / 'log').read_text()


def test_dataset__classes_of_the_coco_file_equal_mmdet(coco_sample):
    data = PanopticMapDataset(
        data_root=str(coco_sample),
        ann_file='annotations/panoptic_val2017.json',
        data_prefix=dict(img='val2017/', seg='annotations/panoptic_val2017/'))
    for key in ('classes', 'thing_classes', 'stuff_classes', 'palette'):
        assert list(data.metainfo[key]) == list(CocoPanopticDataset.METAINFO[key])
