"""Loading of a panoptic PNG as one segment index map and a table of its segments."""
from typing import List, Optional, Sequence, Tuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from remax_mm.panoptic_format import MAX_ID, index_segments, read_segment_ids

_MAX_SEGMENTS = np.iinfo(np.uint16).max


def index_annotation(ids: np.ndarray, segments: Sequence[dict], crowd_ids: Sequence[int], path: str,
                     check_segments: bool) -> np.ndarray:
    """Convert the ids of an annotation to indices of its segments.

    Args:
        ids: (H, W) int32 segment ids of the PNG, 0 is unlabeled.
        segments: Of each segment that is not crowd ``id`` and optionally ``area`` in pixels.
        crowd_ids: Ids of the crowd regions.
        path: The PNG, for error messages.
        check_segments: See :class:`LoadPanopticMap`.

    Returns:
        (H, W) uint8 or uint16: 0 is void (unlabeled or crowd), i >= 1 is ``segments[i - 1]``.

    Raises:
        ValueError: an id is invalid or repeated, or ids or areas of PNG and JSON differ.
    """
    segment_ids = [segment['id'] for segment in segments]
    _check_listed_ids([*segment_ids, *crowd_ids], path)
    found = index_segments(ids, segment_ids, crowd_ids)
    if not check_segments:
        return found.segment_map

    if found.unknown_ids or found.unseen_ids:
        unknown, unseen = found.unknown_ids[:10] or 'none', found.unseen_ids[:10] or 'none'
        raise ValueError(f'Expected the ids in {path} to be those of its `segments_info` in the JSON, '
                         f'but the JSON lacks {unknown} and the PNG lacks {unseen}')
    for segment, area in zip(segments, found.areas.tolist()):
        if segment.get('area') not in (None, area):
            raise ValueError(
                f'Expected segment {segment["id"]} to have {segment["area"]} pixels, its area in '
                f'the JSON, but it has {area} in {path}')
    return found.segment_map


def _check_listed_ids(ids: List[int], path: str) -> None:
    invalid = [segment_id for segment_id in ids if not 1 <= segment_id <= MAX_ID]
    if invalid:
        raise ValueError(f'Expected segment ids from 1 to {MAX_ID} in the JSON for {path}, '
                         f'but got {invalid[:10]}')
    if len(set(ids)) < len(ids) or len(ids) > _MAX_SEGMENTS:
        raise ValueError(
            f'Expected at most {_MAX_SEGMENTS} segments with different ids in the JSON for {path}, '
            f'but got {len(ids)} segments with {len(set(ids))} ids')


@TRANSFORMS.register_module()
class LoadPanopticMap(BaseTransform):
    """Load the ground truth of a panoptic record as one segment index map.

    For training; test pipelines use :class:`LoadSegmentIds`. Results without the key ``seg_map_path`` are not
    changed, because mmdet's ``DetInferencer`` sends images that do not belong to a dataset.

    Required keys: ``seg_map_path``, ``segments_info`` (``id``, ``category``, ``is_thing``, ``iscrowd``, and
    optionally ``area`` in pixels), and for the expected size ``ori_shape`` of a loaded image, or ``height``
    and ``width``.

    Added keys:

    - ``gt_seg_map``: (H, W) uint8, uint16 above 255 segments; 0 is void (unlabeled or crowd), i >= 1 is row
      i - 1 of the tables.
    - ``gt_segment_labels``: (S,) int64 in [0, K).
    - ``gt_segment_is_thing``: (S,) bool.

    Args:
        check_segments: Whether it is an error if an id is only in the PNG or only in the JSON, or if ``area``
            is not the number of pixels. If False, pixels of unlisted ids are void, and segments without
            pixels keep their rows.
        backend_args: Arguments of the file backend, see :func:`mmengine.fileio.get`.

    Raises:
        FileNotFoundError: the PNG does not exist.
        BrokenFileError: the PNG cannot be decoded.
        ValueError: the record has no PNG, the sizes of PNG and photo differ, a segment id in the JSON is
            invalid or repeated, or ids or areas of PNG and JSON differ.
    """

    def __init__(self, check_segments: bool = True, backend_args: Optional[dict] = None) -> None:
        self.check_segments = check_segments
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add the ground truth to ``results``."""
        if 'seg_map_path' not in results:
            return results
        path = results['seg_map_path']
        if path is None:
            raise ValueError(
                f'Expected a panoptic PNG for {results.get("img_path")}, but its record has none: '
                f'set `data_prefix.seg`, or remove {type(self).__name__} from the pipeline')
        ids = read_segment_ids(path, self.backend_args, _expected_size(results))
        segments = [segment for segment in results['segments_info'] if not segment['iscrowd']]
        crowd_ids = [segment['id'] for segment in results['segments_info'] if segment['iscrowd']]
        segment_map = index_annotation(ids, segments, crowd_ids, path, self.check_segments)
        self._add_ground_truth(results, ids, segment_map, segments)
        return results

    def _add_ground_truth(self, results: dict, ids: np.ndarray, segment_map: np.ndarray,
                          segments: Sequence[dict]) -> None:
        results['gt_seg_map'] = segment_map
        results['gt_segment_labels'] = np.array([segment['category'] for segment in segments], np.int64)
        results['gt_segment_is_thing'] = np.array([segment['is_thing'] for segment in segments], bool)

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(check_segments={self.check_segments}, '
                f'backend_args={self.backend_args})')


def _expected_size(results: dict) -> Tuple[int, int]:
    """Height and width of the photo; the loaded photo has priority over the JSON."""
    if 'ori_shape' in results:
        height, width = results['ori_shape'][:2]
        return height, width
    return results['height'], results['width']
