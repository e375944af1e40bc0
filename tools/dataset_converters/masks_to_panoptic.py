#!/usr/bin/env python
"""Convert semantic and instance masks, your own data say, to COCO's panoptic format.

    python tools/dataset_converters/masks_to_panoptic.py --images data/mine/images/train \\
        --semantic data/mine/semantic/train --instances data/mine/instances/train \\
        --classes data/mine/classes.json --out data/mine/panoptic_train.json

The masks have the names of the photos, with another ending. A semantic PNG holds a class value per pixel,
an instance PNG a number per pixel (8 or 16 bits), 0 for none. The semantic PNG says what a pixel is, the
number which one of its class: numbers may start anew in each class, numbers on stuff say nothing, and a thing
without a number is a crowd region. In place of instance PNGs there may be COCO annotations of instances
(``--instances-json``); these lie over the semantic PNG, small ones over large ones.

The class file is JSON or YAML, a list of entries such as

    {"name": "car", "value": 13, "isthing": 1, "color": [0, 0, 142], "supercategory": "vehicle"}

whose color and supercategory may be left out. Values without a class are an error unless ``--void`` names
them. Writes the JSON and, beside it, a folder of PNGs of the same name. A run that was interrupted can be
started again.
"""
import argparse
from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import yaml
from mmengine.fileio import load
from pycocotools import mask as coco_mask

from remax_mm.panoptic_format import (ConvertedImage, SegmentLabel, check_unique, list_some, number_keys,
                                      read_label_map, read_photo_size, write_split)

CLASS_KEYS = {'name', 'value', 'isthing', 'color', 'supercategory'}
KEY_BASE = 2**32
"""A pixel's key is KEY_BASE * (class value + 1) + instance number."""


class Classes(NamedTuple):
    """Categories of the JSON, whose ids are the values in the semantic PNGs, and values that are void."""
    categories: List[dict]
    void_values: List[int]

    def is_thing(self) -> Dict[int, bool]:
        """Of each value that has a class, whether that is a thing."""
        return {category['id']: bool(category['isthing']) for category in self.categories}


class CocoInstances(NamedTuple):
    """An image's annotations of instances in COCO's format, and the (height, width) that they are for."""
    size: Tuple[int, int]
    annotations: List[dict]


class Job(NamedTuple):
    """An image; ``instances`` is a PNG, or annotations, or None where no class is a thing."""
    image_id: int
    name: str  # of the photo below its folder, without the ending
    photo: Path
    semantic: Path
    instances: Union[Path, CocoInstances, None]


def read_classes(path: Path, void_values: Sequence[int]) -> Classes:
    """Read the class file.

    Raises:
        ValueError: an entry lacks a key, has one that is not known or a value out of range, or two entries
            share a name or a value.
    """
    try:
        entries = load(str(path))
    except (ValueError, TypeError, yaml.YAMLError) as error:
        raise ValueError(f'Expected JSON or YAML in {path}, but cannot read it: {error}') from error
    if not isinstance(entries, list) or not all(isinstance(entry, dict) for entry in entries) or not entries:
        raise ValueError(f'Expected a list of entries with name, value and isthing in {path}')
    for entry in entries:
        if not {'name', 'value', 'isthing'} <= set(entry) <= CLASS_KEYS:
            raise ValueError(
                f'Expected name, value and isthing, and perhaps color and supercategory, in each '
                f'entry of {path}, but got {entry}')
        is_value = isinstance(entry['value'], int) and 0 <= entry['value'] < KEY_BASE // 2
        if not is_value or entry['isthing'] not in (0, 1):
            raise ValueError(f'Expected a value from 0 on, and 0 or 1 as isthing, in {path}, but got {entry}')
    check_unique('name', 'classes', [entry['name'] for entry in entries], str(path))
    check_unique('value', 'classes', [entry['value'] for entry in entries], str(path))
    check_unique('value', 'classes and --void', [*void_values, *(entry['value'] for entry in entries)],
                 str(path))
    optional = ('color', 'supercategory')
    return Classes([
        dict(
            id=entry['value'],
            name=entry['name'],
            isthing=int(entry['isthing']),
            **{key: entry[key]
               for key in optional if key in entry}) for entry in entries
    ], list(void_values))


def combine_masks(semantic: np.ndarray, numbers: np.ndarray,
                  classes: Classes) -> Tuple[np.ndarray, List[SegmentLabel], Dict[str, int]]:
    """Turn class values and instance numbers into segments.

    Args:
        semantic: (H, W) class values.
        numbers: (H, W) instance numbers in [0, 2^32), 0 for none.

    Returns:
        (H, W) int32 segment ids from 1 on, what they are, and notes for the report.

    Raises:
        ValueError: a value has no class, or a number is negative.
    """
    is_thing = classes.is_thing()
    present = np.unique(semantic).tolist()
    unknown = [value for value in present if value not in is_thing and value not in classes.void_values]
    if unknown:
        raise ValueError(f'Expected the values of the class file, but got also {unknown[:5]}; if these are '
                         f'unlabeled, say `--void {" ".join(map(str, unknown))}`')
    if numbers.min() < 0:
        raise ValueError(f'Expected instance numbers from 0 on, but got {numbers.min()}')

    thing_values = [value for value, thing in is_thing.items() if thing]
    on_thing = np.isin(semantic, thing_values)
    keys = (semantic.astype(np.int64) + 1) * KEY_BASE + np.where(on_thing, numbers, 0)
    keys[np.isin(semantic, classes.void_values)] = 0
    ids, found = number_keys(keys)
    labels = []
    for segment_id, key in enumerate(found, 1):
        value, number = key // KEY_BASE - 1, key % KEY_BASE
        labels.append(SegmentLabel(segment_id, value, iscrowd=is_thing[value] and number == 0))
    idle = int(((numbers > 0) & ~on_thing).sum())
    return ids, labels, {'instance numbers on stuff or void, which say nothing': idle}


def draw_instances(semantic: np.ndarray, annotations: Sequence[Mapping],
                   value_of: Mapping[int, int]) -> Tuple[np.ndarray, np.ndarray]:
    """Lay COCO's annotations of instances over a semantic map: crowds first, then large before small.

    Args:
        semantic: (H, W) class values.
        annotations: ``category_id``, ``segmentation`` (polygons or RLE) and ``iscrowd`` of each instance.
        value_of: Class value of each category id.

    Returns:
        Class values and instance numbers, both (H, W); crowds have the number 0.
    """
    semantic, numbers = semantic.astype(np.int64), np.zeros(semantic.shape, np.int64)
    instances = [(annotation, _decode(annotation['segmentation'], *semantic.shape))
                 for annotation in annotations]
    instances.sort(key=lambda pair: (not pair[0].get('iscrowd', 0), -int(pair[1].sum())))
    for number, (annotation, mask) in enumerate(instances, 1):
        semantic[mask] = value_of[annotation['category_id']]
        numbers[mask] = 0 if annotation.get('iscrowd', 0) else number
    return semantic, numbers


def _decode(segmentation: Any, height: int, width: int) -> np.ndarray:
    """Mask (H, W) bool of polygons, of an RLE, or of an RLE whose counts are a list."""
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


def convert_files(classes: Classes, value_of: Mapping[int, int], folder: Path, job: Job) -> ConvertedImage:
    """Convert the masks of one image."""
    size = read_photo_size(job.photo)
    semantic, numbers = read_label_map(job.semantic), np.zeros(size, np.int64)
    _check_size(job, job.semantic, semantic.shape, size)
    if isinstance(job.instances, CocoInstances):
        _check_size(job, 'the JSON of instances', job.instances.size, size)
    elif job.instances is not None:
        numbers = read_label_map(job.instances)
        _check_size(job, job.instances, numbers.shape, size)

    try:
        if isinstance(job.instances, CocoInstances):
            semantic, numbers = draw_instances(semantic, job.instances.annotations, value_of)
        ids, labels, notes = combine_masks(semantic, numbers, classes)
    except ValueError as error:
        raise ValueError(f'Cannot convert the masks of {job.photo}: {error}') from error
    file_name = job.photo.relative_to(folder).as_posix()
    return ConvertedImage(job.image_id, file_name, f'{job.name}.png', ids, labels, notes)


def _check_size(job: Job, what: Any, size: Tuple[int, int], expected: Tuple[int, int]) -> None:
    if tuple(size) != expected:
        raise ValueError(f'Expected annotation of the size of {job.photo}, {expected} (height, width), '
                         f'but {what} has {tuple(size)}')


def read_instances(path: Path, classes: Classes) -> Tuple[Dict[str, CocoInstances], Dict[int, int]]:
    """Read COCO's annotations of instances: by name of the photo, and the class value of each category id.

    Raises:
        ValueError: a category is no thing of the class file, a photo is listed twice, or an annotation is of
            an image or a category that is not listed.
    """
    content = load(str(path), file_format='json')
    missing = {'images', 'annotations', 'categories'} - set(content)
    if missing:
        raise ValueError(f'Expected COCO annotations in {path}, but it has no {list_some(missing)}')
    value_of_thing = {
        category['name']: category['id']
        for category in classes.categories if category['isthing']
    }
    unknown = [
        category['name'] for category in content['categories'] if category['name'] not in value_of_thing
    ]
    if unknown:
        raise ValueError(f'Expected the categories of {path} to be things of the class file, but '
                         f'{list_some(unknown)} are not')
    check_unique('photo', '`images`', [image['file_name'] for image in content['images']], str(path))

    for key, listed in (('image_id', content['images']), ('category_id', content['categories'])):
        strange = {annotation[key]
                   for annotation in content['annotations']} - {entry['id']
                                                                for entry in listed}
        if strange:
            raise ValueError(f'Expected the `{key}` of each annotation among the ids that {path} lists, but '
                             f'{list_some(strange)} are not')

    of_image = defaultdict(list)
    for annotation in content['annotations']:
        of_image[annotation['image_id']].append(annotation)
    instances = {
        image['file_name']: CocoInstances((image['height'], image['width']), of_image[image['id']])
        for image in content['images']
    }
    return instances, {category['id']: value_of_thing[category['name']] for category in content['categories']}


def find_jobs(args: argparse.Namespace, instances: Mapping[str, CocoInstances]) -> List[Job]:
    """An image for each photo, in the order of their names.

    Raises:
        ValueError: there is no photo, or the JSON of instances lacks one.
    """
    photos = sorted(args.images.rglob(f'*{args.image_suffix}'))
    if not photos:
        raise ValueError(f'Expected photos {args.images}/*{args.image_suffix}, but there is none; '
                         '`--image-suffix` names another ending')
    jobs = []
    for image_id, photo in enumerate(photos, 1):
        file_name = photo.relative_to(args.images).as_posix()
        name = file_name[:-len(args.image_suffix)]
        of_photo = instances.get(file_name)
        if args.instances:
            of_photo = args.instances / f'{name}{args.instance_suffix}'
        elif args.instances_json and of_photo is None:
            raise ValueError(f'Expected {photo} among the `images` of {args.instances_json} as {file_name!r}')
        jobs.append(Job(image_id, name, photo, args.semantic / f'{name}{args.semantic_suffix}', of_photo))
    return jobs


def parse_args(argv: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('--images', type=Path, required=True, help='folder of photos')
    parser.add_argument('--semantic', type=Path, required=True, help='folder of semantic PNGs')
    source = parser.add_mutually_exclusive_group()
    source.add_argument('--instances', type=Path, help='folder of instance PNGs')
    source.add_argument('--instances-json', type=Path, help='COCO annotations of instances in their place')
    parser.add_argument('--classes', type=Path, required=True, help='class file, see above')
    parser.add_argument('--out', type=Path, required=True, help='JSON to write, the PNGs go beside it')
    parser.add_argument('--void', type=int, nargs='+', default=[], help='semantic values that are unlabeled')
    parser.add_argument('--image-suffix', default='.jpg', help='ending of photos, default .jpg')
    parser.add_argument('--semantic-suffix', default='.png', help='ending of semantic PNGs, default .png')
    parser.add_argument('--instance-suffix', default='.png', help='ending of instance PNGs, default .png')
    parser.add_argument('--processes', type=int, default=1, help='number of processes (default: 1)')
    parser.add_argument('--overwrite', action='store_true', help='replace files that differ')
    return parser.parse_args(argv)


def main(argv: Optional[Sequence[str]] = None) -> None:
    args = parse_args(argv)
    try:
        classes = read_classes(args.classes, args.void)
        things = [category['name'] for category in classes.categories if category['isthing']]
        if things and not (args.instances or args.instances_json):
            raise ValueError(
                f'Expected `--instances` or `--instances-json` for the things of {args.classes}, '
                f'{list_some(things)}')
        instances, value_of = {}, {}
        if args.instances_json:
            instances, value_of = read_instances(args.instances_json, classes)
        jobs = find_jobs(args, instances)
        convert = partial(convert_files, classes, value_of, args.images)
        print(write_split(args.out, convert, jobs, classes.categories, args.processes, args.overwrite))
        _report_idle(args, jobs)
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}')


def _report_idle(args: argparse.Namespace, jobs: Sequence[Job]) -> None:
    idle = set(args.semantic.rglob(f'*{args.semantic_suffix}')) - {job.semantic for job in jobs}
    if idle:
        print(f'  {len(idle)} semantic PNGs have no photo and were left out, such as {min(idle)}')


if __name__ == '__main__':
    main()
