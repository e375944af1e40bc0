"""Files of annotation tools: the samples in tests/data/annotation_tools, and what can be wrong with them."""
import json
import shutil

import cv2
import numpy as np
import pytest

from remax_mm.datasets.converters import FORMATS, AnnotationSource, DrawingRules, convert_annotations
from remax_mm.datasets.converters.convert_masks import read_classes
from remax_mm.datasets.converters.shapes import Shape, circle_polygon, draw_shapes
from tests.conftest import REPOSITORY

SAMPLES = REPOSITORY / 'tests' / 'data' / 'annotation_tools'
PATHS = dict(
    labelme='labelme',
    via='via/project.json',
    coco='cvat_coco/annotations/instances_default.json',
    **{'cvat-masks': 'cvat_masks'})
CLASSES = [
    dict(name='hen', isthing=1, color=[9, 8, 7]),
    dict(name='sky', isthing=0),
    dict(name='grass', isthing=0),
    dict(name='egg', isthing=1),
]
# Of each class the pixels of its segments: rows and columns.
SKY = ('sky', [np.s_[:10, :]])
HEN, PARTS = ('hen', [np.s_[12:22, 5:15]]), [np.s_[12:22, 20:24], np.s_[12:22, 26:30]]
EGG = ('egg', [np.s_[25:28, 33:37]])
GRASS = ('grass', [np.s_[10:, :]])


class Files:
    """A copy of the samples, their photo and the classes."""

    def __init__(self, root):
        self.root = root
        shutil.copytree(SAMPLES, root / 'samples')
        self.write_photo()
        self.write_classes(CLASSES)

    def write_photo(self, name='yard.jpg', height=30, width=40):
        path = self.root / 'photos' / name
        path.parent.mkdir(parents=True, exist_ok=True)
        cv2.imwrite(str(path), np.full((height, width, 3), 99, np.uint8))

    def write_classes(self, classes):
        (self.root / 'classes.json').write_text(json.dumps(classes))

    def path(self, name):
        return self.root / 'samples' / PATHS.get(name, name)

    def change(self, name, function):
        """Rewrite the JSON of a format."""
        path = self.path(name) / 'yard.json' if name == 'labelme' else self.path(name)
        content = json.loads(path.read_text())
        function(content)
        path.write_text(json.dumps(content))

    def convert(self, name, rules=DrawingRules(), void_values=(), out='train.json', **options):
        splits = {key: options.pop(key) for key in ('val_file', 'val_every') if key in options}
        source = AnnotationSource(name, options.pop('annotations', self.path(name)), self.root / 'photos',
                                  **options)
        return convert_annotations(self.root / out, source, self.root / 'classes.json', rules, void_values,
                                   **splits)

    def error(self, name, **options):
        with pytest.raises((ValueError, FileNotFoundError)) as caught:
            self.convert(name, **options)
        message = str(caught.value)
        assert '\n' not in message and not (self.root / 'train.json').exists()
        return message

    def segments(self, out='train'):
        """Of each segment of the photo its class, whether it is a crowd, and its pixels."""
        content = json.loads((self.root / f'{out}.json').read_text())
        names = {category['id']: category['name'] for category in content['categories']}
        annotation, = content['annotations']
        ids = cv2.imread(str(self.root / out / annotation['file_name'])).astype(int) @ [65536, 256, 1]
        return [(names[s['category_id']], s['iscrowd'], ids == s['id']) for s in annotation['segments_info']]


@pytest.fixture
def files(tmp_path):
    return Files(tmp_path)


def _pixels(areas, without=()):
    pixels = np.zeros((30, 40), bool)
    for area in areas:
        pixels[area] = True
    for area in without:
        pixels[area] = False
    return pixels


def _check(found, expected):
    """Compare segments, in any order."""
    for name, pixels in expected:
        matches = [entry for entry in found if entry[0] == name and np.array_equal(entry[2], pixels)]
        assert len(matches) == 1 and matches[0][1] == 0, name
    assert len(found) == len(expected)


@pytest.mark.parametrize('name', FORMATS)
def test_convert_annotations__samples(files, name):
    summary, = files.convert(name)
    hens = [('hen', [part]) for part in PARTS] if name == 'via' else [('hen', PARTS)]
    things = [HEN, *hens, EGG]
    hidden = [area for _, areas in things for area in areas]
    hidden += [np.s_[28:, :3]] if name == 'cvat-masks' else []
    expected = [(label, _pixels(areas)) for label, areas in [SKY, *things]]
    _check(files.segments(), [*expected, ('grass', _pixels(GRASS[1], hidden))])
    assert (summary.things, summary.stuff, summary.crowd) == (len(things), 2, 0)
    assert summary.void_ratio == (6 / 1200 if name == 'cvat-masks' else 0)
    content = json.loads((files.root / 'train.json').read_text())
    assert content['categories'][0] == dict(id=1, name='hen', isthing=1, color=[9, 8, 7])
    assert content['images'] == [dict(id=1, file_name='yard.jpg', height=30, width=40)]


def test_convert_annotations__export_of_via_version_1(files):
    files.convert('via')
    expected = files.segments()
    files.convert('via', annotations=SAMPLES / 'via' / 'export_version_1.json', out='other.json')
    _check([(name, crowd, pixels) for name, crowd, pixels in files.segments('other')],
           [(name, pixels) for name, _, pixels in expected])


def test_convert_annotations__coco_instances_on_a_semantic_map(files):
    """The polygons are things; stuff, and hens that nobody outlined, are in the semantic PNG."""
    files.write_classes([dict(entry, value=value) for entry, value in zip(CLASSES, (5, 7, 0, 2))])
    semantic = np.zeros((30, 40), np.uint8)
    semantic[:10], semantic[29], semantic[28] = 7, 255, 5
    (files.root / 'semantic').mkdir()
    cv2.imwrite(str(files.root / 'semantic' / 'yard.png'), semantic)
    files.change('coco', lambda content: content.update(annotations=content['annotations'][2:]))
    files.convert('coco', semantic=files.root / 'semantic', void_values=[255])
    segments = files.segments()
    crowd, = (entry for entry in segments if entry[1])
    assert crowd[0] == 'hen' and np.array_equal(crowd[2], _pixels([np.s_[28, :]]))
    hidden = [area for _, areas in (HEN, ('hen', PARTS), EGG) for area in areas] + [np.s_[28:, :]]
    _check([entry for entry in segments if not entry[1]], [(SKY[0], _pixels(SKY[1])),
                                                           (HEN[0], _pixels(HEN[1])), ('hen', _pixels(PARTS)),
                                                           (EGG[0], _pixels(EGG[1])),
                                                           ('grass', _pixels(GRASS[1], hidden))])


@pytest.mark.parametrize('name, place', [('labelme', 'shape 3 and 4 (hen)'), ('via', 'region 3 (hen)'),
                                         ('coco', 'annotation 4 (hen)')])
def test_convert_annotations__overlap(files, name, place):

    def move(content):
        """The left part of the second hen to columns 12 to 15 of the first one: 3 columns, 10 rows."""
        if name == 'labelme':
            content['shapes'][3]['points'] = [[12, 12], [16, 12], [16, 22], [12, 22]]
        elif name == 'via':
            content['_via_img_metadata']['yard.jpg1523']['regions'][3]['shape_attributes'].update(
                all_points_x=[12, 16, 16, 12])
        else:
            content['annotations'][3]['segmentation'][0] = [12, 12, 16, 12, 16, 22, 12, 22]

    files.change(name, move)
    message = files.error(name)
    assert 'yard.jpg' in message and place in message and 'share 30 pixels; --overlap smaller' in message
    files.convert(name, rules=DrawingRules(smaller_on_top=True))
    pixels = {int(entry[2].sum()) for entry in files.segments() if entry[0] == 'hen'}
    # The smaller hen is whole: 40 pixels, and 40 more of its right part, which is a hen of its own in VIA.
    assert pixels == ({70, 40} if name == 'via' else {70, 80})


@pytest.mark.parametrize('name', ['labelme', 'via', 'coco'])
def test_convert_annotations__points_outside_of_the_image(files, name):

    def move(content):
        if name == 'labelme':
            content['shapes'][2]['points'] = [[-5, 12], [15, 12], [15, 22], [-5, 22]]
        elif name == 'via':
            content['_via_img_metadata']['yard.jpg1523']['regions'][2]['shape_attributes'].update(
                all_points_x=[-5, 15, 15, -5])
        else:
            content['annotations'][2]['segmentation'] = [[-5, 12, 15, 12, 15, 22, -5, 22]]

    files.change(name, move)
    message = files.error(name)
    assert '(hen): Expected points inside of the image of 40 x 30 pixels, but got (-5, 12); --clip' in message
    files.convert(name, rules=DrawingRules(clip=True))
    assert any(entry[0] == 'hen' and np.array_equal(entry[2], _pixels([np.s_[12:22, :15]]))
               for entry in files.segments())


@pytest.mark.parametrize('name', FORMATS)
def test_convert_annotations__unknown_and_void_labels(files, name):
    files.write_classes(CLASSES[:3])
    message = files.error(name)
    assert "Expected the labels of the class file" in message and "there are also 'egg'" in message
    assert '--void' in message and str(files.path(name)) in message
    files.convert(name, rules=DrawingRules(void_labels=['egg']))
    assert not any(entry[2][26, 34] for entry in files.segments())


@pytest.mark.parametrize('name', FORMATS)
def test_convert_annotations__missing_photo_and_other_size(files, name):
    (files.root / 'photos' / 'yard.jpg').unlink()
    assert 'yard' in files.error(name) and str(files.root / 'photos') in files.error(name)
    files.write_photo(height=29)
    message = files.error(name)
    if name == 'via':  # which has no sizes
        assert 'inside of the image of 40 x 29 pixels, but got (40, 30)' in message
    else:
        assert 'photos/yard.jpg' in message and '(30, 40)' in message and '(29, 40)' in message


@pytest.mark.parametrize('name, text, message', [
    ('labelme', '{', 'Expected annotations of labelme in .*yard.json, but .*JSON'),
    ('labelme', '{"shapes": [{"label": "hen", "points": [[1]]}], "imagePath": "a"}',
     r'at shapes.0.points.0.1'),
    ('labelme', '{"shapes": [{"label": "hen", "points": [[1, NaN]]}], "imagePath": "a"}', 'finite|JSON'),
    ('labelme',
     '{"shapes": [{"label": "hen", "points": [[1, 2]], "shape_type": "point"}], "imagePath": "yard.jpg"}',
     r'polygon, rectangle, circle or mask as shape 0 \(hen\), but got point with 1 points'),
    ('labelme', '{"shapes": [{"label": "hen", "points": [[1, 2], [3, 4]]}], "imagePath": "yard.jpg"}',
     'at least three points'),
    ('labelme', '{"shapes": [{"label": "hen", "points": [[1, 1], [1, 1], [1, 1]]}], "imagePath": "yard.jpg"}',
     'at least one pixel'),
    ('via', '{"a": {"filename": "yard.jpg", "regions": [{"shape_attributes": {"name": "polyline"}, '
     '"region_attributes": {"class": "hen"}}]}}',
     'region 0 of yard.jpg: Expected a polygon, rect, .* but got polyline'),
    ('via', '{"a": {"filename": "yard.jpg", "regions": [{"shape_attributes": {"name": "rect"}, '
     '"region_attributes": {"class": "hen", "sex": "f"}}]}}', r"got \['class', 'sex'\]; --label-attribute"),
    ('via', '{"a": {"filename": "yard.jpg", "regions": [{"shape_attributes": {"name": "rect", "x": "1"}, '
     '"region_attributes": {"class": "hen"}}]}}', 'Expected numbers as x, y, width, height'),
    ('via', '{"a": {"filename": "../yard.jpg", "regions": []}}', 'inside of the folder of photos'),
    ('coco', '{"images": [], "annotations": []}', 'at categories: Field required'),
    ('coco', '{"images": [], "annotations": [], "categories": []}',
     'Expected annotations in .*, but there are none'),
])
def test_convert_annotations__bad_content(files, name, text, message):
    path = files.path(name) / 'yard.json' if name == 'labelme' else files.path(name)
    path.write_text(text)
    with pytest.raises(ValueError, match=message):
        files.convert(name)


@pytest.mark.parametrize('change, message', [
    (dict(segmentation=[]), 'annotation 5 has none: a box is not enough'),
    (dict(segmentation=dict(counts=[0, 7], size=[30, 40])),
     'an RLE of 1200 pixels in .*, but annotation 5 has 7'),
    (dict(segmentation=dict(counts=[600], size=[30, 20])), 'an RLE of 30 x 40 pixels'),
    (dict(category_id=9), 'the `category_id` of each annotation .* 9 are not'),
    (dict(image_id=9), 'the `image_id` of each annotation .* 9 are not'),
])
def test_convert_annotations__bad_coco_annotations(files, change, message):
    files.change('coco', lambda content: content['annotations'][4].update(change))
    with pytest.raises(ValueError, match=message):
        files.convert('coco')


def test_convert_annotations__colors_of_cvat(files):
    path = files.path('cvat-masks') / 'labelmap.txt'
    text = path.read_text()
    path.write_text(text.replace('egg:250,50,83', 'egg:250,50,84'))
    assert "Expected the colors of" in files.error('cvat-masks') and '(250, 50, 83)' in files.error(
        'cvat-masks')
    path.write_text(text + 'dog:1,2\n')
    assert "but line 7 is 'dog:1,2'" in files.error('cvat-masks')
    path.write_text(text)
    (files.path('cvat-masks') / 'SegmentationObject' / 'yard.png').unlink()
    assert 'Expected a mask at' in files.error('cvat-masks')


def test_convert_annotations__masks_of_cvat_with_a_palette(files):
    """The indices of the palette have no meaning."""
    from PIL import Image
    files.convert('cvat-masks')
    expected = files.segments()
    path = files.path('cvat-masks') / 'SegmentationClass' / 'yard.png'
    Image.open(path).convert('RGB').quantize(16, dither=Image.Dither.NONE).save(path)
    files.convert('cvat-masks', out='other.json')
    _check(files.segments('other'), [(name, pixels) for name, _, pixels in expected])


def test_convert_annotations__crowds_of_coco(files):
    files.change('coco', lambda content: content['annotations'][3].update(iscrowd=1))
    files.convert('coco')
    crowd, = (entry for entry in files.segments() if entry[1])
    assert crowd[0] == 'hen' and np.array_equal(crowd[2], _pixels(PARTS))


def test_convert_annotations__split_of_one_export(files):

    def repeat(content):
        content['images'] = [dict(content['images'][0], id=n, file_name=f'{n}.jpg') for n in range(1, 8)]
        content['annotations'] = [dict(content['annotations'][0], id=n, image_id=n) for n in range(1, 8)]

    files.change('coco', repeat)
    for number in range(1, 8):
        files.write_photo(f'{number}.jpg')
    train, val = files.convert('coco', val_file=files.root / 'val.json', val_every=3)
    assert (train.images, val.images) == (5, 2)
    names = [image['file_name'] for image in json.loads((files.root / 'val.json').read_text())['images']]
    assert names == ['3.jpg', '6.jpg']
    with pytest.raises(ValueError, match='from 2 to the 7 photos as --val-every, but got 8'):
        files.convert('coco', val_file=files.root / 'val.json', val_every=8)


def test_draw_shapes__layers(tmp_path):
    """By hand, on 2 x 4 pixels: stuff, then void and crowds, then things; small ones on top."""
    path = tmp_path / 'classes.json'
    path.write_text(json.dumps(CLASSES[:3]))
    classes = read_classes(path, has_values=False)  # hen 1, sky 2, grass 3

    def shape(label, columns, iscrowd=False):
        mask = np.zeros((2, 4), bool)
        mask[:, columns] = True
        return Shape(label, label, mask, iscrowd)

    shapes = [
        shape('hen', [3]),
        shape('ignore', [2, 3]),
        shape('sky', [0, 1, 2, 3]),
        shape('hen', [1], iscrowd=True),
    ]
    rules = DrawingRules(void_labels=['ignore'])
    semantic, numbers = draw_shapes(shapes, np.full((2, 4), 9), 9, classes, rules)
    assert semantic.tolist() == [[2, 1, 9, 1]] * 2
    assert numbers[0].tolist()[:3] == [0, 0, 0] and numbers[0, 3] > 0


def test_circle_polygon__area_of_an_ellipse():
    points = np.array(circle_polygon(10, 20, 4, 2, np.pi / 2)).reshape(-1, 2)
    x, y = points.T
    area = 0.5 * abs(np.dot(x, np.roll(y, 1)) - np.dot(y, np.roll(x, 1)))
    assert area == pytest.approx(np.pi * 8, rel=0.01)
    assert y.max() == pytest.approx(24) and x.max() == pytest.approx(12)
