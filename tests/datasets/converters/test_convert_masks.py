"""Conversion of semantic PNGs, with instance PNGs or COCO instance annotations."""
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from remax_mm.datasets.converters import MaskSource, convert_masks, unused_semantic_pngs
from tests.datasets.original_layouts import USER_VOID, write_user_masks

CLASSES = [
    dict(name='lawn', value=9, isthing=0),
    dict(name='hen', value=2, isthing=1, color=[1, 2, 3], supercategory='bird'),
    dict(name='sky', value=0, isthing=False),
    dict(name='egg', value=300, isthing=True),
]


class Folder:
    """A dataset of one photo, ``a.jpg``, and its conversion."""

    def __init__(self, path):
        self.path = path
        self.write('classes.json', CLASSES)

    def write(self, name, content):
        """Write a JSON, or an image of (H, W) numbers."""
        path = self.path / name
        path.parent.mkdir(parents=True, exist_ok=True)
        if name.endswith('.json'):
            path.write_text(json.dumps(content))
        else:
            values = np.array(content)
            cv2.imwrite(str(path), values.astype(np.uint16 if values.max() > 255 else np.uint8))
        return path

    def masks(self, semantic, instances=None):
        self.write('images/a.jpg', np.zeros_like(semantic))
        self.write('semantic/a.png', semantic)
        if instances is not None:
            self.write('instances/a.png', instances)

    def source(self, **changes):
        arguments = dict(instances=self.path / 'instances')
        return MaskSource(self.path / 'images', self.path / 'semantic', **{**arguments, **changes})

    def convert(self, void=(), classes='classes.json', **changes):
        return convert_masks(self.path / 'train.json', self.source(**changes), self.path / classes, void)

    def convert_json(self):
        return self.convert(instances=None, instances_json=self.path / 'instances.json')

    def result(self):
        """Ids of the PNG, and (id, class, crowd) of its segments."""
        content = json.loads((self.path / 'train.json').read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        png = cv2.imread(str(self.path / 'train' / 'a.png'))
        segments = content['annotations'][0]['segments_info']
        return png[..., 2].tolist(), [(s['id'], names[s['category_id']], s['iscrowd']) for s in segments]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_convert_masks__by_hand(folder):
    folder.masks(
        [[0, 0, 0, 255, 9], [2, 2, 300, 300, 9], [2, 2, 300, 300, 9]],  # sky, void, lawn, hens and eggs
        [[5, 0, 0, 66, 0], [1, 4000, 1, 0, 0], [1, 4000, 1, 0, 8]])
    text = str(folder.convert(void=[255]))
    # By value, then by number: sky 0; hens without number (none), 1, 4000; lawn 9; eggs without number, 1.
    assert folder.result() == ([[1, 1, 1, 0, 4], [2, 3, 6, 5, 4], [2, 3, 6, 5, 4]], [(1, 'sky', 0),
                                                                                     (2, 'hen', 0),
                                                                                     (3, 'hen', 0),
                                                                                     (4, 'lawn', 0),
                                                                                     (5, 'egg', 1),
                                                                                     (6, 'egg', 0)])
    content = json.loads((folder.path / 'train.json').read_text())
    assert content['categories'] == [
        dict(id=9, name='lawn', isthing=0),
        dict(id=2, name='hen', isthing=1, color=[1, 2, 3], supercategory='bird'),
        dict(id=0, name='sky', isthing=0),
        dict(id=300, name='egg', isthing=1),
    ]
    assert content['images'] == [dict(id=1, file_name='a.jpg', height=3, width=5)]
    assert '6 segments: 3 things, 2 stuff, 1 crowd' in text and '6.67% of' in text
    assert '3 pixels: instance numbers on stuff or void' in text


def test_convert_masks__stuff_alone_needs_no_instances(folder):
    folder.write('classes.json', [CLASSES[0], CLASSES[2]])
    folder.masks([[0, 9, 9]])
    folder.convert(instances=None)
    assert folder.result() == ([[1, 2, 2]], [(1, 'sky', 0), (2, 'lawn', 0)])


def test_convert_masks__folders_and_endings(folder):
    for name, value in (('b/x', 0), ('a/x', 9)):
        folder.write(f'images/{name}_rgb.bmp', [[7, 7]])
        folder.write(f'semantic/{name}_labels.png', [[value, value]])
        folder.write(f'instances/{name}_objects.png', [[0, 0]])
    folder.convert(image_suffix='_rgb.bmp', semantic_suffix='_labels.png', instance_suffix='_objects.png')
    content = json.loads((folder.path / 'train.json').read_text())
    assert [(image['id'], image['file_name']) for image in content['images']] == [(1, 'a/x_rgb.bmp'),
                                                                                  (2, 'b/x_rgb.bmp')]
    assert [a['file_name'] for a in content['annotations']] == ['a/x.png', 'b/x.png']
    assert [a['segments_info'][0]['category_id'] for a in content['annotations']] == [9, 0]


def test_read_classes__yaml(folder):
    folder.masks([[0, 9]], [[0, 0]])
    (folder.path / 'classes.yaml').write_text('- {name: lawn, value: 9, isthing: false}\n'
                                              '- {name: sky, value: 0, isthing: 0}\n')
    folder.convert(classes='classes.yaml')
    assert folder.result() == ([[1, 2]], [(1, 'sky', 0), (2, 'lawn', 0)])


def _instances_json(folder, annotations, size=(4, 6), name='a.jpg'):
    """Category ids 50 hen and 60 egg."""
    content = dict(
        images=[dict(id=3, file_name=name, height=size[0], width=size[1])],
        categories=[dict(id=50, name='hen'), dict(id=60, name='egg')],
        annotations=[
            dict(annotation, id=number, image_id=3) for number, annotation in enumerate(annotations)
        ])
    folder.write('instances.json', content)


def _rle(rows, columns, size=(4, 6), compressed=True):
    mask = np.zeros(size, np.uint8, order='F')
    mask[rows, columns] = 1
    if compressed:
        rle = coco_mask.encode(mask)
        return dict(size=list(size), counts=rle['counts'].decode())
    runs, value, length = [], 0, 0
    for pixel in mask.ravel(order='F').tolist():
        if pixel != value:
            runs.append(length)
            value, length = pixel, 0
        length += 1
    return dict(size=list(size), counts=[*runs, length])


def test_draw_instances__order_of_drawing(folder):
    semantic = np.full((4, 6), 9)
    semantic[3] = 2  # hens, some of which are annotated
    folder.masks(semantic)
    _instances_json(
        folder,
        [
            dict(category_id=60, iscrowd=0, segmentation=_rle(slice(1, 2), slice(1, 2))),  # in the hen
            dict(category_id=50, iscrowd=0, segmentation=[[0, 0, 3, 0, 3, 3, 0, 3]
                                                          ]),  # columns and rows 0 to 2
            dict(category_id=60, iscrowd=1, segmentation=_rle(slice(0, 2), slice(2, 6), compressed=False)),
        ])
    folder.convert_json()
    # A small instance is drawn over a large one, and both over a crowd; the hens of the last row are a crowd.
    assert folder.result() == ([[2, 2, 2, 4, 4, 4], [2, 5, 2, 4, 4, 4], [2, 2, 2, 3, 3, 3],
                                [1, 1, 1, 1, 1, 1]], [(1, 'hen', 1), (2, 'hen', 0), (3, 'lawn', 0),
                                                      (4, 'egg', 1), (5, 'egg', 0)])


@pytest.mark.parametrize('annotation, message', [
    (dict(category_id=50, segmentation=[]), 'Expected polygons or an RLE'),
    (dict(category_id=50, segmentation=_rle(0, 0, size=(3, 3))), r'Expected an RLE of 4 x 6 .* \[3, 3\]'),
])
def test_draw_instances__segmentation_that_does_not_fit(folder, annotation, message):
    folder.masks(np.full((4, 6), 9))
    _instances_json(folder, [annotation])
    with pytest.raises(ValueError, match=f'^Cannot convert the masks of .*a.jpg: {message}'):
        folder.convert_json()


def test_read_instances__of_other_data(folder):
    folder.masks(np.full((4, 6), 9))

    def error():
        with pytest.raises(ValueError) as caught:
            folder.convert_json()
        return str(caught.value)

    _instances_json(folder, [], size=(5, 6))
    assert 'a.jpg, (4, 6) (height, width), but the JSON of instances has (5, 6)' in error()
    _instances_json(folder, [], name='b.jpg')
    assert f"Expected {folder.path}/images/a.jpg among the `images` of {folder.path}/instances.json" in error(
    )
    _instances_json(folder, [dict(category_id=70, segmentation=_rle(0, 0))])
    assert "Expected the `category_id` of each annotation among the ids that" in error()
    assert "instances.json lists, but 70 are not" in error()
    _instances_json(folder, [])
    folder.write('classes.json', CLASSES[:3])
    assert "instances.json to be things of the class file, but 'egg' are not" in error()
    folder.write('instances.json', dict(images=[]))
    assert "instances.json, but it has no 'annotations', 'categories'" in error()


@pytest.mark.parametrize('semantic, instances, message', [
    ([[0, 17, 18]], [[0, 0, 0]
                     ], r'Cannot convert the masks of .*a.jpg: .* got also \[17, 18\].*`--void 17 18`'),
    ([[0, 0]], [[0, 0, 0]
                ], r'Expected annotation of the size of .*a.jpg, \(1, 2\) .*instances/a.png has \(1, 3\)'),
])
def test_convert_masks__masks_that_do_not_fit(folder, semantic, instances, message):
    folder.masks(semantic, instances)
    with pytest.raises(ValueError, match=f'^{message}'):
        folder.convert()
    assert not (folder.path / 'train.json').exists()


def test_convert_masks__missing_files(folder):
    folder.masks([[0, 0]], [[0, 0]])
    folder.write('images/b.jpg', [[0, 0]])
    with pytest.raises(FileNotFoundError, match='^Expected an annotation at .*semantic/b.png'):
        folder.convert()
    unused = folder.write('semantic/b.png', [[0, 0]])
    with pytest.raises(FileNotFoundError, match='^Expected an annotation at .*instances/b.png'):
        folder.convert()
    assert unused_semantic_pngs(folder.source()) == set()
    (folder.path / 'images' / 'b.jpg').unlink()
    folder.convert()
    assert unused_semantic_pngs(folder.source()) == {unused}
    with pytest.raises(ValueError, match=r'^Expected photos .*images/\*.tif, but there is none'):
        folder.convert(image_suffix='.tif')
    with pytest.raises(FileNotFoundError, match='instances.json'):
        folder.convert_json()


def test_convert_masks__things_without_instances(folder):
    folder.masks([[0, 0]])
    with pytest.raises(ValueError, match=r"`--instances` or `--instances-json` for .*, 'egg', 'hen'"):
        folder.convert(instances=None)


@pytest.mark.parametrize('classes, message', [
    (dict(lawn=9), 'a list of entries with name, value and isthing in .*classes.json'),
    ([], 'a list of entries'),
    ([dict(name='lawn', value=9)], 'Expected name, value and isthing.*classes.json'),
    ([dict(name='lawn', value=9, isthing=0, colors=[0, 0, 0])], "optionally color and .*'colors'"),
    ([dict(name='lawn', value=-1, isthing=0)], 'a value of at least 0'),
    ([dict(name='lawn', value='9', isthing=0)], 'a value of at least 0'),
    ([dict(name='lawn', value=9, isthing='no')], '0 or 1 as isthing'),
    ([CLASSES[0], dict(CLASSES[1], value=9)], 'each value once in the classes of .*classes.json, but 9'),
    ([CLASSES[0], dict(CLASSES[1], name='lawn')], "each name once in the classes of .*, but 'lawn'"),
])
def test_read_classes__bad_entries(folder, classes, message):
    folder.write('classes.json', classes)
    with pytest.raises(ValueError, match=message):
        folder.convert()


def test_read_classes__class_and_void_at_once(folder):
    with pytest.raises(ValueError, match='each value once in the classes and --void of .*, but 9'):
        folder.convert(void=[9])
    (folder.path / 'classes.json').write_text('{')
    with pytest.raises(ValueError, match='JSON or YAML in .*classes.json, but cannot read it'):
        folder.convert()


def test_convert_masks__instance_pngs_and_json_give_the_same(tmp_path):
    """In two processes."""
    write_user_masks(tmp_path, ['train'])
    contents = []
    for name, instances in (('pngs', dict(instances=tmp_path / 'instances' / 'train')),
                            ('json', dict(instances_json=tmp_path / 'instances_train.json'))):
        source = MaskSource(tmp_path / 'images' / 'train', tmp_path / 'semantic' / 'train', **instances)
        text = str(
            convert_masks(
                tmp_path / f'{name}.json', source, tmp_path / 'classes.json', [USER_VOID], processes=2))
        assert '5 images; 0 of their PNGs' in text and '3 crowd' in text
        contents.append(json.loads((tmp_path / f'{name}.json').read_text()))
    # Instance numbers differ between the two sources, and therefore the order of the segments.
    for content in contents:
        for annotation in content['annotations']:
            for segment in annotation['segments_info']:
                segment.pop('id')
            annotation['segments_info'].sort(key=str)
    assert contents[0] == contents[1]
