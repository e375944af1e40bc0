"""The classes of COCO, and two of its images."""
import json

import pytest

from remax_mm.datasets.coco_panoptic import CocoPanopticMapDataset


def test_dataset__classes_of_coco_unless_all_lists_are_given(tiny_set):
    assert len(CocoPanopticMapDataset(**tiny_set.arguments()).metainfo['classes']) == 4
    with pytest.raises(ValueError, match='4 classes for 80 things and 53 stuff'):
        CocoPanopticMapDataset(**tiny_set.arguments(metainfo=dict(classes=('cat', 'dog', 'sky', 'grass'))))
    with pytest.raises(ValueError, match="missing are 'airplane', .* not in `metainfo` are 'grass', 'sky'"):
        CocoPanopticMapDataset(**tiny_set.arguments(metainfo=None))


def test_dataset__coco_sample(coco_sample):
    prefix = dict(img='val2017/', seg='annotations/panoptic_val2017/')
    data = CocoPanopticMapDataset(
        data_root=str(coco_sample), ann_file='annotations/panoptic_val2017.json', data_prefix=prefix)
    content = json.loads((coco_sample / 'annotations' / 'panoptic_val2017.json').read_text())
    names = {category['id']: category['name'] for category in content['categories']}
    of_image = {annotation['image_id']: annotation['segments_info'] for annotation in content['annotations']}
    assert len(data) == 2 and len(data.metainfo['classes']) == 133
    for i in range(2):
        record = data.get_data_info(i)
        got = [(s['id'], data.metainfo['classes'][s['category']]) for s in record['segments_info']]
        assert got == [(s['id'], names[s['category_id']]) for s in of_image[record['img_id']]]
