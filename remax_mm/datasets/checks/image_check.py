"""Checks of one image of a panoptic dataset: its files, its segments in the JSON, its pixels."""
from collections import Counter
from functools import partial
from typing import Callable, List, Mapping, NamedTuple, Optional, Tuple

import numpy as np

from remax_mm.panoptic_format import (VOID_ID, BrokenFileError, Finding, find_boxes, index_segments,
                                      read_image, read_segment_ids)
from .json_check import Category, ImageTask


class ImageReport(NamedTuple):
    """Defects and contents of an image.

    Attributes:
        findings: Defects.
        pixels: Number of pixels of the PNG; 0 if it cannot be read.
        void: Number of unlabeled pixels.
        crowd: Number of pixels of crowd regions.
        class_pixels, class_segments: Numbers of pixels and segments by category id, without crowd regions.
    """
    findings: List[Finding]
    pixels: int = 0
    void: int = 0
    crowd: int = 0
    class_pixels: Mapping[int, int] = {}
    class_segments: Mapping[int, int] = {}


def check_image(task: ImageTask, categories: Mapping[int, Category]) -> ImageReport:
    """Check the files, the segments and the pixels of one image.

    Args:
        task: The image.
        categories: Categories of the JSON, by id.
    """
    findings = check_segments_info(task, categories)
    size = (task.image['height'], task.image['width'])
    findings += _read_or_find(partial(read_image, size=size), task.image_path, 'image')[1]

    ids, png_findings = _read_or_find(partial(read_segment_ids, size=size), task.png_path, 'png')
    if ids is None:
        return ImageReport([*findings, *png_findings])
    return _check_pixels(ids, task, categories, findings)


def check_segments_info(task: ImageTask, categories: Mapping[int, Category]) -> List[Finding]:
    """Look for unusual entries in the ``segments_info`` of an image, without its PNG."""
    segments, path = task.annotation['segments_info'], task.png_path
    findings = []
    stuff_segments = []
    for segment in segments:
        category = categories.get(segment['category_id'])
        if category is not None and not category.is_thing:
            stuff_segments.append(segment)
            if segment.get('iscrowd'):
                findings.append(Finding('stuff_is_crowd', path, f'segment {segment["id"]}'))
    for category_id, count in Counter(s['category_id'] for s in stuff_segments
                                      if not s.get('iscrowd')).items():
        if count > 1:
            message = f'{count} segments of the stuff class {categories[category_id].name!r}'
            findings.append(Finding('stuff_repeated', path, message))

    if all(segment.get('iscrowd') for segment in segments):
        findings.append(Finding('all_void', path, f'{len(segments)} segments, all of them crowd regions'))
    return findings


def _read_or_find(read: Callable[[str], np.ndarray], path: str,
                  kind: str) -> Tuple[Optional[np.ndarray], List[Finding]]:
    """Content of an image file, or why training cannot read it; ``kind`` is ``image`` or ``png``."""
    try:
        return read(path), []
    except FileNotFoundError:
        return None, [Finding(f'{kind}_missing', path, 'no such file')]
    except (BrokenFileError, OSError) as error:
        return None, [Finding(f'{kind}_broken', path, str(error))]
    except ValueError as error:
        return None, [Finding('size_differs', path, str(error))]


def _check_pixels(ids: np.ndarray, task: ImageTask, categories: Mapping[int, Category],
                  findings: List[Finding]) -> ImageReport:
    """Compare ids, areas and boxes of PNG and JSON, and count the pixels."""
    segments = list({segment['id']: segment for segment in task.annotation['segments_info']}.values())
    segment_map, unknown_ids, _, areas = index_segments(ids, [segment['id'] for segment in segments])
    pixels_of_unlisted = zip(*np.unique(ids[np.isin(ids, unknown_ids)], return_counts=True))
    findings += [
        Finding('segment_unlisted', task.png_path, f'{pixels} pixels of id {segment_id}')
        for segment_id, pixels in pixels_of_unlisted
    ]

    class_pixels: Counter = Counter()
    class_segments: Counter = Counter()
    crowd = 0
    for segment, area, box in zip(segments, areas.tolist(), find_boxes(segment_map, len(segments))):
        findings += _check_segment(segment, area, box, task.png_path)
        if segment.get('iscrowd'):
            crowd += area
        elif segment['category_id'] in categories:
            class_pixels[segment['category_id']] += area
            class_segments[segment['category_id']] += 1
    void = int((ids == VOID_ID).sum())
    return ImageReport(findings, ids.size, void, crowd, dict(class_pixels), dict(class_segments))


def _check_segment(segment: dict, area: int, box: Optional[List[int]], path: str) -> List[Finding]:
    """Compare ``area`` and ``bbox`` of a segment in the JSON with its pixels; box is None without a pixel."""
    if box is None:
        return [Finding('segment_empty', path, f'segment {segment["id"]} has no pixel')]
    findings = []
    if 'area' in segment and segment['area'] != area:
        message = f'segment {segment["id"]} has {area} pixels, the JSON has {segment["area"]}'
        findings.append(Finding('area_wrong', path, message))
    if 'bbox' in segment and list(segment['bbox']) != box:
        message = (f'segment {segment["id"]} has the box {box} (x, y, width, height), the JSON has '
                   f'{segment["bbox"]}')
        findings.append(Finding('bbox_wrong', path, message))
    return findings
