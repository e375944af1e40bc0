"""Reading COCO panoptic annotations: labels by name, all segments, and errors that name file and reason."""
import json
import shutil

import pytest
from mmdet.registry import DATASETS

from remax_mm.datasets.coco_categories import map_categories
from remax_mm.datasets.coco_panoptic import CocoPanopticMapDataset


def _records(tiny_set, **kwargs):
    data = CocoPanopticMapDataset(**tiny_set.arguments(**kwargs))
    return {data.get_data_info(i)['img_id']: data.get_data_info(i) for i in range(len(data))}


def test_map_categories__labels_follow_the_class_list():
    categories = [
        dict(id=5, name='road', isthing=0),
        dict(id=90, name='car', isthing=1),
        dict(id=2, name='bus', isthing=1)
    ]
    assert map_categories(categories, ('bus', 'car'), ('road', ), 'x.json') == {5: 2, 90: 1, 2: 0}


def test_map_categories__one_kind_alone():
    things = [dict(id=8, name='car', isthing=True)]
    assert map_categories(things, ('car', ), (), 'x.json') == {8: 0}
    stuff = [dict(id=8, name='road', isthing=False)]
    assert map_categories(stuff, (), ('road', ), 'x.json') == {8: 0}


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
    data = DATASETS.build(dict(type='CocoPanopticMapDataset', **tiny_set.arguments()))
    assert len(data) == 4 and data.metainfo['classes'] == ('cat', 'dog', 'sky', 'grass')
    assert sorted(data.get_cat_ids(0)) == [0, 0, 1, 1, 2, 3]


def test_dataset__filter(tiny_set):
    assert sorted(_records(tiny_set)) == [1, 2, 3, 4]
    assert sorted(_records(tiny_set, filter_cfg=dict(filter_empty_gt=False))) == [1, 2, 3, 4]
    # Stuff alone is ground truth; crowd alone and nothing at all are not.
    assert sorted(_records(tiny_set, filter_cfg=dict(filter_empty_gt=True))) == [1, 2]
    assert sorted(_records(tiny_set, filter_cfg=dict(min_size=12))) == [1, 2, 3]
    assert sorted(_records(tiny_set, test_mode=True, filter_cfg=dict(min_size=12))) == [1, 2, 3, 4]
    with pytest.raises(ValueError, match="filter_cfg.*'min_sise'"):
        _records(tiny_set, filter_cfg=dict(min_sise=12))


def test_dataset__indices_and_lazy_init(tiny_set):
    assert sorted(_records(tiny_set, indices=2)) == [1, 2]
    lazy = CocoPanopticMapDataset(**tiny_set.arguments(lazy_init=True))
    lazy.full_init()
    assert len(lazy) == 4


def test_dataset__test_images_without_ground_truth(tiny_set):
    tiny_set.rewrite(lambda content: content.pop('annotations'))
    records = _records(tiny_set, test_mode=True, data_prefix=dict(img='images/'))
    assert [record['seg_map_path'] for record in records.values()] == [None] * 4
    assert records[1]['segments_info'] == []
    with pytest.raises(ValueError, match='`seg` for training'):
        _records(tiny_set, data_prefix=dict(img='images/'))


def test_dataset__png_name_from_the_photo(tiny_set):

    def drop_names(content):
        for annotation in content['annotations']:
            del annotation['file_name']

    tiny_set.rewrite(drop_names)
    assert _records(tiny_set)[2]['seg_map_path'] == str(tiny_set.root / 'png' / '002.png')


@pytest.mark.parametrize('all_things', [True, False])
def test_dataset__one_kind_alone(tiny_set, all_things):
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
     'category ids of .*panoptic.json.*002.png has a segment of category 99'),
    (_drop_isthing, "isthing.* every category of .*panoptic.json, but 'dog' lack"),
    (_edit_category('dog', isthing=0), "agree with .*contradicts them for 'dog'"),
    (_edit_category('sky', isthing=1), "agree with .*contradicts them for 'sky'"),
    (_edit_category('dog', name='wolf'), "panoptic.json.* lack 'dog' and have besides 'wolf'"),
    (lambda c: c['categories'].append(dict(id=4, name='cow', isthing=1)), "lack none and have besides 'cow'"),
    (lambda c: c['categories'].append(dict(id=4, name='dog', isthing=1)), "once in the categories .*'dog'"),
    (lambda c: c.pop('categories'), "`categories` in .*panoptic.json, but its keys are .*'images'"),
])
def test_dataset__json_that_does_not_fit(tiny_set, edit, message):
    tiny_set.rewrite(edit)
    with pytest.raises(ValueError, match=message):
        _records(tiny_set)


def test_dataset__class_list_that_does_not_fit(tiny_set):
    classes = dict(thing_classes=('cat', 'dog'), stuff_classes=('sky', 'grass'))
    with pytest.raises(ValueError, match='`thing_classes` followed by `stuff_classes`'):
        _records(tiny_set, metainfo=dict(classes=('sky', 'grass', 'cat', 'dog'), **classes))
    # Without its own lists of things and stuff those of COCO would be in force.
    with pytest.raises(ValueError, match='4 classes for 80 things and 53 stuff'):
        _records(tiny_set, metainfo=dict(classes=('cat', 'dog', 'sky', 'grass')))


def test_dataset__coco_sample(reference_dir):
    root = reference_dir / 'data' / 'coco_sample'
    prefix = dict(img='val2017/', seg='annotations/panoptic_val2017/')
    data = CocoPanopticMapDataset(
        data_root=str(root), ann_file='annotations/panoptic_val2017.json', data_prefix=prefix)
    content = json.loads((root / 'annotations' / 'panoptic_val2017.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    of_image = {annotation['image_id']: annotation['segments_info'] for annotation in content['annotations']}
    assert len(data) == 2 and len(data.metainfo['classes']) == 133
    for i in range(2):
        record = data.get_data_info(i)
        got = [(s['id'], data.metainfo['classes'][s['category']]) for s in record['segments_info']]
        assert got == [(s['id'], names[s['category_id']]) for s in of_image[record['img_id']]]
