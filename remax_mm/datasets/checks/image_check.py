"""Look one image of a panoptic dataset over: its files, its segments in the JSON, its pixels."""
from collections import Counter
from typing import List, Mapping, NamedTuple, Optional, Tuple

import numpy as np
from scipy.ndimage import find_objects

from remax_mm.panoptic_format import VOID_ID, BrokenFileError, index_segments, read_image, read_segment_ids
from .json_check import Category, Finding, ImageTask

MAX_ID = 256**3 - 1


class ImageReport(NamedTuple):
    """What one image holds: pixels and numbers of segments by category id, without crowd."""
    findings: List[Finding]
    pixels: int = 0
    void: int = 0
    crowd: int = 0
    class_pixels: Mapping[int, int] = {}
    class_segments: Mapping[int, int] = {}


def check_image(task: ImageTask, categories: Mapping[int, Category]) -> ImageReport:
    """Look at one image: its files, its segments in the JSON, its pixels.

    Args:
        task: the image.
        categories: by their ids.
    """
    findings = check_segments_info(task, categories)
    size = (task.image['height'], task.image['width'])
    findings += _check_photo(task.image_path, size)

    try:
        ids = read_segment_ids(task.png_path)
    except FileNotFoundError:
        return ImageReport([*findings, Finding('png_missing', task.png_path, 'no such file')])
    except BrokenFileError as error:
        return ImageReport([*findings, Finding('png_broken', task.png_path, str(error))])
    if ids.shape != size:
        findings.append(
            Finding('size_differs', task.png_path,
                    f'the PNG is {ids.shape}, the JSON says {size} (height, width)'))
    return _check_pixels(ids, task, categories, findings)


def check_segments_info(task: ImageTask, categories: Mapping[int, Category]) -> List[Finding]:
    """Defects of an image's ``segments_info``, seen without its PNG."""
    segments = task.annotation['segments_info']
    findings = []
    for segment_id, count in Counter(segment['id'] for segment in segments).items():
        if count > 1:
            findings.append(
                Finding('segment_id_twice', task.png_path, f'{count} segments have the id {segment_id}'))
        if not 1 <= segment_id <= MAX_ID:
            findings.append(Finding('segment_id_invalid', task.png_path, f'segment id {segment_id}'))

    known = [segment for segment in segments if segment['category_id'] in categories]
    findings += [
        Finding('unknown_category', task.png_path,
                f'segment {segment["id"]} is of category {segment["category_id"]}') for segment in segments
        if segment['category_id'] not in categories
    ]
    stuff = [segment for segment in known if not categories[segment['category_id']].is_thing]
    for category_id, count in Counter(s['category_id'] for s in stuff if not s.get('iscrowd')).items():
        if count > 1:
            findings.append(
                Finding('stuff_in_parts', task.png_path,
                        f'{count} segments of the stuff class {categories[category_id].name!r}'))
    findings += [
        Finding('stuff_is_crowd', task.png_path, f'segment {segment["id"]}') for segment in stuff
        if segment.get('iscrowd')
    ]
    if all(segment.get('iscrowd') for segment in segments):
        findings.append(Finding('all_void', task.png_path, f'{len(segments)} segments, all of them crowd'))
    return findings


def _check_photo(path: str, size: Tuple[int, int]) -> List[Finding]:
    """Whether training could read a photo, and whether it would be of the size (height, width)."""
    try:
        found = read_image(path).shape[:2]
    except FileNotFoundError:
        return [Finding('image_missing', path, 'no such file')]
    except BrokenFileError as error:
        return [Finding('image_broken', path, str(error))]
    if found != size:
        return [Finding('size_differs', path, f'the image is {found}, the JSON says {size} (height, width)')]
    return []


def _check_pixels(ids: np.ndarray, task: ImageTask, categories: Mapping[int, Category],
                  findings: List[Finding]) -> ImageReport:
    segments = list({segment['id']: segment for segment in task.annotation['segments_info']}.values())
    index = index_segments(ids, [segment['id'] for segment in segments])
    areas = np.bincount(index.index.ravel(), minlength=len(segments) + 1)
    unknown = dict(zip(*np.unique(ids[np.isin(ids, index.unknown_ids)], return_counts=True)))
    findings += [
        Finding('id_only_in_png', task.png_path, f'{pixels} pixels of id {segment_id}')
        for segment_id, pixels in unknown.items()
    ]

    class_pixels, class_segments = Counter(), Counter()
    crowd = 0
    for segment, area, box in zip(segments, areas[1:].tolist(), _boxes(index.index, len(segments))):
        findings += _compare_segment(segment, area, box, task.png_path)
        if segment.get('iscrowd'):
            crowd += area
        elif segment['category_id'] in categories:
            class_pixels[segment['category_id']] += area
            class_segments[segment['category_id']] += 1
    return ImageReport(findings, ids.size, int((ids == VOID_ID).sum()), crowd, dict(class_pixels),
                       dict(class_segments))


def _boxes(index: np.ndarray, num_segments: int) -> List[Optional[List[int]]]:
    slices = find_objects(index.astype(np.int32), num_segments)
    return [
        None if found is None else
        [found[1].start, found[0].start, found[1].stop - found[1].start, found[0].stop - found[0].start]
        for found in slices
    ]


def _compare_segment(segment: dict, area: int, box: Optional[List[int]], path: str) -> List[Finding]:
    """``area`` and ``bbox`` of a segment in the JSON against the pixels; box is None without any."""
    if box is None:
        return [Finding('segment_empty', path, f'segment {segment["id"]} has no pixel')]
    findings = []
    if 'area' in segment and segment['area'] != area:
        findings.append(
            Finding('area_wrong', path,
                    f'segment {segment["id"]} has {area} pixels, the JSON says {segment["area"]}'))
    if 'bbox' in segment and list(segment['bbox']) != box:
        findings.append(
            Finding(
                'bbox_wrong', path,
                f'segment {segment["id"]} fills {box} (x, y, width, height), the JSON says '
                f'{segment["bbox"]}'))
    return findings
