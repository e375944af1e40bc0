"""The Cityscapes dataset: things first, paths of photos from image ids."""
import json

import pytest
from mmdet.registry import DATASETS
from mmseg.datasets import CityscapesDataset

from remax_mm.datasets.cityscapes_panoptic import CityscapesPanopticMapDataset
from tests.datasets.original_layouts import run_converter, write_cityscapes


def _build(folder, **kwargs):
    return DATASETS.build(
        dict(
            dict(
                type='CityscapesPanopticMapDataset',
                data_root=str(folder),
                ann_file='gtFine/cityscapes_panoptic_val.json',
                data_prefix=dict(img='leftImg8bit/val/', seg='gtFine/cityscapes_panoptic_val/')), **kwargs))


@pytest.fixture
def folder(tmp_path):
    write_cityscapes(tmp_path, ['val'], ['mixed', 'stuff'])
    run_converter('cityscapes_panoptic', tmp_path, '--splits', 'val')
    return tmp_path


def _rewrite(folder, edit):
    path = folder / 'gtFine' / 'cityscapes_panoptic_val.json'
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))


def test_metainfo__things_first_with_the_colors_of_cityscapes():
    metainfo = CityscapesPanopticMapDataset.METAINFO
    assert metainfo['thing_classes'] == ('person', 'rider', 'car', 'truck', 'bus', 'train', 'motorcycle',
                                         'bicycle')
    assert metainfo['classes'] == metainfo['thing_classes'] + metainfo['stuff_classes']
    # mmseg uses the order of the train ids, stuff first.
    theirs = CityscapesDataset.METAINFO
    assert metainfo['stuff_classes'] == tuple(theirs['classes'][:11])
    assert dict(zip(metainfo['classes'], metainfo['palette'])) == {
        name: tuple(color)
        for name, color in zip(theirs['classes'], theirs['palette'])
    }


def test_dataset__records(folder):
    data = _build(folder)
    record = data.get_data_info(1)
    assert record['img_id'] == 'bad-honnef_000001_000019'
    assert record[
        'img_path'] == f'{folder}/leftImg8bit/val/bad-honnef/bad-honnef_000001_000019_leftImg8bit.png'
    assert record['seg_map_path'] == (
        f'{folder}/gtFine/cityscapes_panoptic_val/bad-honnef_000001_000019_gtFine_panoptic.png')
    assert (record['height'], record['width']) == (65, 129)
    assert sorted((s['id'], s['category'], s['is_thing'], s['iscrowd'])
                  for s in record['segments_info']) == [(7, 8, False, False), (11, 10, False, False),
                                                        (23, 18, False, False)]  # road, building, sky
    # The crowd region of bicycles has the id 33; instances have 1000 * label + number.
    mixed = {s['id']: s for s in data.get_data_info(0)['segments_info']}
    assert mixed[33]['iscrowd'] and mixed[33]['is_thing'] and mixed[33]['category'] == 7
    assert {value // 1000 for value in mixed if value >= 1000} == {24, 26}


def test_dataset__train_ids_give_the_same_labels(folder):
    run_converter('cityscapes_panoptic', folder, '--splits', 'val', '--use-train-id')
    other = _build(folder, ann_file='gtFine/cityscapes_panoptic_val_trainId.json')
    assert other.get_data_info(0) == _build(folder).get_data_info(0)
    assert sorted(other.cat2label) == list(range(19)) and other.cat2label[0] == 8  # road


def test_dataset__test_split_without_annotations(folder):
    _rewrite(folder, lambda content: content.pop('annotations'))
    record = _build(folder, test_mode=True).get_data_info(0)
    assert record['seg_map_path'].endswith('/aachen_000000_000019_gtFine_panoptic.png')
    assert record['segments_info'] == []


@pytest.mark.parametrize('wrong', [17, 'aachen', 'aachen_000000_000019_leftImg8bit', 'a_b_000000_000019'])
def test_dataset__invalid_image_id(folder, wrong):

    def change_id(content):
        content['images'][0]['id'] = content['annotations'][0]['image_id'] = wrong

    _rewrite(folder, change_id)
    with pytest.raises(ValueError, match=f'Cityscapes image ids <city>_.* in .*_val.json, but got {wrong!r}'):
        _build(folder)
