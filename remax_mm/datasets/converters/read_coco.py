"""COCO's JSON of instances, such as CVAT's export "COCO 1.0": polygons and RLEs of all photos in one file."""
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Union

from pydantic import ConfigDict, with_config
from typing_extensions import NotRequired, TypedDict

from remax_mm.panoptic_format import check_unique, list_some
from .annotation_files import Coordinate, read_json, relative_name
from .shapes import Shape, ShapedPhoto

_keep_other_keys = with_config(ConfigDict(extra='ignore'))


@_keep_other_keys
class CocoCategory(TypedDict):
    """Entry of ``categories``."""
    id: int
    name: str


@_keep_other_keys
class CocoImage(TypedDict):
    """Entry of ``images``."""
    id: int
    file_name: str
    height: int
    width: int


class CocoRle(TypedDict):
    """Runs of pixels, as numbers or compressed."""
    size: List[int]
    counts: Union[List[int], str]


@_keep_other_keys
class CocoAnnotation(TypedDict):
    """Entry of ``annotations``."""
    id: int
    image_id: int
    category_id: int
    segmentation: Union[List[List[Coordinate]], CocoRle]
    iscrowd: NotRequired[int]


@_keep_other_keys
class CocoFile(TypedDict):
    """Content of a file."""
    images: List[CocoImage]
    annotations: List[CocoAnnotation]
    categories: List[CocoCategory]


def read_coco(path: Path) -> List[ShapedPhoto]:
    """Read the shapes of all photos of a file.

    Raises:
        ValueError: the file has another content, a photo is listed twice, an id is unknown, or an annotation
            has no segmentation.
    """
    content = read_json(path, CocoFile, 'COCO annotations')
    label_of = {category['id']: category['name'] for category in content['categories']}
    check_unique('photo', '`images`', [image['file_name'] for image in content['images']], str(path))
    for key, known in (('image_id', {image['id']
                                     for image in content['images']}), ('category_id', set(label_of))):
        unlisted = {annotation[key] for annotation in content['annotations']} - known
        if unlisted:
            raise ValueError(f'Expected the `{key}` of each annotation among the ids that {path} lists, but '
                             f'{list_some(unlisted)} are not')

    shapes: Dict[int, List[Shape]] = defaultdict(list)
    for annotation in content['annotations']:
        where = f'annotation {annotation["id"]}'
        if not annotation['segmentation']:
            raise ValueError(
                f'Expected polygons or an RLE as `segmentation` in {path}, but {where} has none: a '
                'box is not enough')
        _check_rle(annotation['segmentation'], where, path)
        shapes[annotation['image_id']].append(
            Shape(where, label_of[annotation['category_id']], annotation['segmentation'],
                  bool(annotation.get('iscrowd', 0))))
    return [
        ShapedPhoto(path, relative_name(image['file_name'], path), (image['height'], image['width']),
                    shapes[image['id']]) for image in content['images']
    ]


def _check_rle(segmentation: Any, where: str, path: Path) -> None:
    """Raise ValueError if the runs of an RLE do not fill its size."""
    if isinstance(segmentation, dict) and isinstance(segmentation['counts'], list):
        pixels = segmentation['size'][0] * segmentation['size'][-1]
        if min(segmentation['counts'], default=0) < 0 or sum(segmentation['counts']) != pixels:
            raise ValueError(f'Expected an RLE of {pixels} pixels in {path}, but {where} has '
                             f'{sum(segmentation["counts"])}')
