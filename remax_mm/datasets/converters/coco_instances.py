"""COCO instance annotations as a source of thing segments."""
from collections import defaultdict
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Sequence, Tuple

import numpy as np
from mmengine.fileio import load
from pycocotools import mask as coco_mask

from remax_mm.panoptic_format import check_unique, list_some


class Instance(NamedTuple):
    """A crowd or one object: its class value, and polygons or an RLE as in COCO's JSON."""
    value: int
    segmentation: Any
    iscrowd: bool


class ImageInstances(NamedTuple):
    """Instances of an image, and the (height, width) that they are for."""
    size: Tuple[int, int]
    instances: List[Instance]


def read_instances(path: Path, value_of_thing: Mapping[str, int]) -> Dict[str, ImageInstances]:
    """Read COCO instance annotations.

    Args:
        path: JSON file.
        value_of_thing: Class value of each thing class, by name.

    Returns:
        The instances by file name of the photo.

    Raises:
        ValueError: a category is not a thing class, a photo is listed twice, or an annotation belongs to an
            image or a category that is not listed.
    """
    content = load(str(path), file_format='json')
    missing = {'images', 'annotations', 'categories'} - set(content)
    if missing:
        raise ValueError(f'Expected COCO annotations in {path}, but it has no {list_some(missing)}')
    images, annotations, categories = (content[key] for key in ('images', 'annotations', 'categories'))
    unknown = [category['name'] for category in categories if category['name'] not in value_of_thing]
    if unknown:
        raise ValueError(f'Expected the categories of {path} to be things of the class file, but '
                         f'{list_some(unknown)} are not')
    check_unique('photo', '`images`', [image['file_name'] for image in images], str(path))
    for key, listed in (('image_id', images), ('category_id', categories)):
        unlisted = {annotation[key] for annotation in annotations} - {entry['id'] for entry in listed}
        if unlisted:
            raise ValueError(f'Expected the `{key}` of each annotation among the ids that {path} lists, but '
                             f'{list_some(unlisted)} are not')

    value_of = {category['id']: value_of_thing[category['name']] for category in categories}
    of_image: Dict[Any, List[Instance]] = defaultdict(list)
    for annotation in annotations:
        instance = Instance(value_of[annotation['category_id']], annotation['segmentation'],
                            bool(annotation.get('iscrowd', 0)))
        of_image[annotation['image_id']].append(instance)
    return {
        image['file_name']: ImageInstances((image['height'], image['width']), of_image[image['id']])
        for image in images
    }


def draw_instances(semantic: np.ndarray, instances: Sequence[Instance]) -> Tuple[np.ndarray, np.ndarray]:
    """Draw instances over a semantic map: crowds first, then large instances before small ones.

    Args:
        semantic: (H, W) class values.
        instances: Instances of the image.

    Returns:
        Class values and instance numbers, both (H, W); crowds have the number 0.
    """
    semantic, numbers = semantic.astype(np.int64), np.zeros(semantic.shape, np.int64)
    masks = [decode_segmentation(instance.segmentation, *semantic.shape) for instance in instances]
    order = sorted(range(len(masks)), key=lambda i: (not instances[i].iscrowd, -int(masks[i].sum())))
    for number, index in enumerate(order, 1):
        semantic[masks[index]] = instances[index].value
        numbers[masks[index]] = 0 if instances[index].iscrowd else number
    return semantic, numbers


def decode_segmentation(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Mask (H, W) bool of polygons or of an RLE, compressed or not.

    Raises:
        ValueError: there is no segmentation, or an RLE of another size.
    """
    if not segmentation:
        raise ValueError(f'Expected polygons or an RLE as `segmentation`, but got {segmentation}')
    if isinstance(segmentation, list):
        rle = coco_mask.merge(coco_mask.frPyObjects(segmentation, height, width))
    elif isinstance(segmentation['counts'], list):
        rle = coco_mask.frPyObjects(segmentation, height, width)
    else:
        rle = segmentation
    if tuple(rle['size']) != (height, width):
        raise ValueError(f'Expected an RLE of {height} x {width} pixels, but got {rle["size"]}')
    return coco_mask.decode(rle).astype(bool)
