"""The converter of anybody's masks: semantic PNGs, with instance PNGs or COCO's instances."""
import json

import cv2
import numpy as np
import pytest
from pycocotools import mask as coco_mask

from tests.datasets.original_layouts import USER_VOID, run_converter, write_user_masks

CLASSES = [
    dict(name='lawn', value=9, isthing=0),
    dict(name='hen', value=2, isthing=1, color=[1, 2, 3], supercategory='bird'),
    dict(name='sky', value=0, isthing=False),
    dict(name='egg', value=300, isthing=True),
]


class Folder:
    """A dataset of one photo, ``a.jpg``, and the converter's arguments for it."""

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

    def convert(self, *arguments, instances='--instances', source='instances', out='train.json'):
        run_converter('masks_to_panoptic', '--images', self.path / 'images', '--semantic',
                      self.path / 'semantic', instances, self.path / source, '--classes',
                      self.path / 'classes.json', '--out', self.path / out, *arguments)

    def result(self, out='train'):
        """Ids of the PNG, and (id, class, crowd) of its segments."""
        content = json.loads((self.path / f'{out}.json').read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        png = cv2.imread(str(self.path / out / 'a.png'))
        segments = content['annotations'][0]['segments_info']
        return png[..., 2].tolist(), [(s['id'], names[s['category_id']], s['iscrowd']) for s in segments]


@pytest.fixture
def folder(tmp_path):
    return Folder(tmp_path)


def test_convert__by_hand(folder, capsys):
    folder.masks(
        [[0, 0, 0, 255, 9], [2, 2, 300, 300, 9], [2, 2, 300, 300, 9]],  # sky void lawn, hens and eggs
        [[5, 0, 0, 66, 0], [1, 4000, 1, 0, 0], [1, 4000, 1, 0, 8]])
    folder.convert('--void', 255)
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
    out = capsys.readouterr().out
    assert '6 segments: 3 things, 2 stuff, 1 crowd' in out and '6.67% of' in out
    assert '3 pixels: instance numbers on stuff or void' in out


def test_convert__stuff_alone_needs_no_instances(folder):
    folder.write('classes.json', [CLASSES[0], CLASSES[2]])
    folder.masks([[0, 9, 9]])
    run_converter('masks_to_panoptic', '--images', folder.path / 'images', '--semantic',
                  folder.path / 'semantic', '--classes', folder.path / 'classes.json', '--out',
                  folder.path / 'train.json')
    assert folder.result() == ([[1, 2, 2]], [(1, 'sky', 0), (2, 'lawn', 0)])


def test_convert__folders_and_endings(folder):
    for name, value in (('b/x', 0), ('a/x', 9)):
        folder.write(f'images/{name}_rgb.bmp', [[7, 7]])
        folder.write(f'semantic/{name}_labels.png', [[value, value]])
        folder.write(f'instances/{name}_objects.png', [[0, 0]])
    folder.convert('--image-suffix', '_rgb.bmp', '--semantic-suffix', '_labels.png', '--instance-suffix',
                   '_objects.png')
    content = json.loads((folder.path / 'train.json').read_text())
    assert [(image['id'], image['file_name']) for image in content['images']] == [(1, 'a/x_rgb.bmp'),
                                                                                  (2, 'b/x_rgb.bmp')]
    assert [a['file_name'] for a in content['annotations']] == ['a/x.png', 'b/x.png']
    assert [a['segments_info'][0]['category_id'] for a in content['annotations']] == [9, 0]


def test_convert__class_file_in_yaml(folder):
    folder.masks([[0, 9]], [[0, 0]])
    (folder.path / 'classes.yaml').write_text('- {name: lawn, value: 9, isthing: false}\n'
                                              '- {name: sky, value: 0, isthing: 0}\n')
    folder.convert('--classes', folder.path / 'classes.yaml')
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


def test_convert__instances_of_coco(folder):
    semantic = np.full((4, 6), 9)
    semantic[3] = 2  # hens, of which the annotations know some
    folder.masks(semantic)
    _instances_json(
        folder,
        [
            dict(category_id=60, iscrowd=0, segmentation=_rle(slice(1, 2), slice(1, 2))),  # in the hen
            dict(category_id=50, iscrowd=0, segmentation=[[0, 0, 3, 0, 3, 3, 0, 3]
                                                          ]),  # columns and rows 0 to 2
            dict(category_id=60, iscrowd=1, segmentation=_rle(slice(0, 2), slice(2, 6), compressed=False)),
        ])
    folder.convert(instances='--instances-json', source='instances.json')
    # A large instance lies under a small one, a crowd under both; hens of the last row are a crowd.
    assert folder.result() == ([[2, 2, 2, 4, 4, 4], [2, 5, 2, 4, 4, 4], [2, 2, 2, 3, 3, 3],
                                [1, 1, 1, 1, 1, 1]], [(1, 'hen', 1), (2, 'hen', 0), (3, 'lawn', 0),
                                                      (4, 'egg', 1), (5, 'egg', 0)])


@pytest.mark.parametrize('annotation, message', [
    (dict(category_id=50, segmentation=[]), 'Expected polygons or an RLE'),
    (dict(category_id=50, segmentation=_rle(0, 0, size=(3, 3))), r'Expected an RLE of 4 x 6 .* \[3, 3\]'),
])
def test_convert__instances_of_coco_that_do_not_fit(folder, annotation, message):
    folder.masks(np.full((4, 6), 9))
    _instances_json(folder, [annotation])
    with pytest.raises(SystemExit, match=f'error: Cannot convert the masks of .*a.jpg: {message}'):
        folder.convert(instances='--instances-json', source='instances.json')


def test_convert__json_of_instances_for_something_else(folder):
    folder.masks(np.full((4, 6), 9))

    def error():
        with pytest.raises(SystemExit) as caught:
            folder.convert(instances='--instances-json', source='instances.json')
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
def test_convert__masks_that_do_not_fit(folder, semantic, instances, message):
    folder.masks(semantic, instances)
    with pytest.raises(SystemExit, match=f'error: {message}'):
        folder.convert()
    assert not (folder.path / 'train.json').exists()


def test_convert__missing_files(folder, capsys):
    folder.masks([[0, 0]], [[0, 0]])
    folder.write('images/b.jpg', [[0, 0]])
    with pytest.raises(SystemExit, match='error: Expected an annotation at .*semantic/b.png'):
        folder.convert()
    folder.write('semantic/b.png', [[0, 0]])
    with pytest.raises(SystemExit, match='error: Expected an annotation at .*instances/b.png'):
        folder.convert()
    (folder.path / 'images' / 'b.jpg').unlink()
    folder.convert()
    assert '1 semantic PNGs have no photo and were left out, such as' in capsys.readouterr().out
    with pytest.raises(SystemExit, match=r'error: Expected photos .*images/\*.tif, but there is none'):
        folder.convert('--image-suffix', '.tif')


def test_convert__things_without_instances(folder):
    folder.masks([[0, 0]])
    with pytest.raises(SystemExit, match=r"`--instances` or `--instances-json` for .*, 'egg', 'hen'"):
        run_converter('masks_to_panoptic', '--images', folder.path, '--semantic', folder.path, '--classes',
                      folder.path / 'classes.json', '--out', folder.path / 'train.json')


@pytest.mark.parametrize('classes, message', [
    (dict(lawn=9), 'a list of entries with name, value and isthing in .*classes.json'),
    ([], 'a list of entries'),
    ([dict(name='lawn', value=9)], 'Expected name, value and isthing.*classes.json'),
    ([dict(name='lawn', value=9, isthing=0, colors=[0, 0, 0])], "perhaps color and .*'colors'"),
    ([dict(name='lawn', value=-1, isthing=0)], 'a value from 0 on'),
    ([dict(name='lawn', value='9', isthing=0)], 'a value from 0 on'),
    ([dict(name='lawn', value=9, isthing='no')], '0 or 1 as isthing'),
    ([CLASSES[0], dict(CLASSES[1], value=9)], 'each value once in the classes of .*classes.json, but 9'),
    ([CLASSES[0], dict(CLASSES[1], name='lawn')], "each name once in the classes of .*, but 'lawn'"),
])
def test_convert__class_file_that_does_not_fit(folder, classes, message):
    folder.write('classes.json', classes)
    with pytest.raises(SystemExit, match=f'error: .*{message}'):
        folder.convert()


def test_convert__class_and_void_at_once(folder):
    with pytest.raises(SystemExit, match='each value once in the classes and --void of .*, but 9'):
        folder.convert('--void', 9)
    (folder.path / 'classes.json').write_text('{')
    with pytest.raises(SystemExit, match='JSON or YAML in .*classes.json, but cannot read it'):
        folder.convert()


def test_main__instance_pngs_and_json_give_the_same(tmp_path, capsys):
    """In two processes."""
    write_user_masks(tmp_path, ['train'])
    for source, name in (('--instances', 'instances/train'), ('--instances-json', 'instances_train.json')):
        run_converter('masks_to_panoptic', '--images', tmp_path / 'images' / 'train', '--semantic',
                      tmp_path / 'semantic' / 'train', source, tmp_path / name, '--classes',
                      tmp_path / 'classes.json', '--void', USER_VOID, '--processes', 2, '--out',
                      tmp_path / f'{source[2:]}.json')
        out = capsys.readouterr().out
        assert '5 images; 0 of their PNGs' in out and '3 crowd' in out
    one, other = (
        json.loads((tmp_path / f'{name}.json').read_text()) for name in ('instances', 'instances-json'))
    # Numbers of instances differ between the two sources, and with them the order of the segments.
    for content in (one, other):
        for annotation in content['annotations']:
            for segment in annotation['segments_info']:
                segment.pop('id')
            annotation['segments_info'].sort(key=str)
    assert one == other
