"""From a panoptic PNG to one map of segment indices and a small table."""
from typing import List, Optional, Sequence, Tuple

import numpy as np
from mmcv.transforms import BaseTransform
from mmdet.registry import TRANSFORMS

from remax_mm.panoptic_format import decode_segment_ids, index_segments, read_image

_MAX_SEGMENTS = np.iinfo(np.uint16).max


@TRANSFORMS.register_module()
class LoadPanopticMap(BaseTransform):
    """Load the ground truth of a panoptic record as one index map; needs no panopticapi.

    For training; test pipelines use :class:`LoadSegmentIds`. An image that is no record of a dataset, as
    mmdet's ``DetInferencer`` sends, has no ``seg_map_path`` at all and passes through.

    Required keys: ``seg_map_path``, ``segments_info`` (``id``, ``category``, ``is_thing``, ``iscrowd``, and
    if known ``area`` in pixels), and ``ori_shape`` of a loaded image or ``height`` and ``width`` for the size
    that is expected.

    Added keys:

    - ``gt_seg_map``: (H, W) uint8, uint16 above 255 segments; 0 is void (unlabeled or crowd), i >= 1 is row
      i - 1 of the tables.
    - ``gt_segment_labels``: (S,) int64 in [0, K).
    - ``gt_segment_is_thing``: (S,) bool.

    Args:
        check_segments: Whether an id that stands in the PNG or in the JSON alone is an error, and an ``area``
            that is not the number of pixels. Where False, pixels of such ids are void, and segments without
            pixels keep an empty row.
        imdecode_backend: Decoder of :func:`mmcv.imfrombytes`.
        backend_args: Arguments of the file backend, see :func:`mmengine.fileio.get`.

    Raises:
        FileNotFoundError: there is no such PNG.
        BrokenFileError: the PNG cannot be decoded.
        ValueError: the record names no PNG, the PNG is of another size than the photo, an id stands twice in
            the JSON, or the ids or areas of PNG and JSON differ.
    """

    def __init__(self,
                 check_segments: bool = True,
                 imdecode_backend: str = 'cv2',
                 backend_args: Optional[dict] = None) -> None:
        self.check_segments = check_segments
        self.imdecode_backend = imdecode_backend
        self.backend_args = backend_args

    def transform(self, results: dict) -> dict:
        """Add the ground truth to ``results``."""
        if 'seg_map_path' not in results:
            return results
        path = results['seg_map_path']
        if path is None:
            raise ValueError(
                f'Expected a panoptic PNG for {results.get("img_path")}, but its record names '
                f'none: set `data_prefix.seg`, or leave {type(self).__name__} out of the pipeline')

        ids = self._load_ids(path, self._expected_size(results))
        segments = [segment for segment in results['segments_info'] if not segment['iscrowd']]
        crowd_ids = [segment['id'] for segment in results['segments_info'] if segment['iscrowd']]

        index = self._index(ids, segments, crowd_ids, path)
        self._add_ground_truth(results, ids, index, segments)
        return results

    def _add_ground_truth(self, results: dict, ids: np.ndarray, index: np.ndarray,
                          segments: Sequence[dict]) -> None:
        results['gt_seg_map'] = index
        results['gt_segment_labels'] = np.array([segment['category'] for segment in segments], np.int64)
        results['gt_segment_is_thing'] = np.array([segment['is_thing'] for segment in segments], bool)

    def _expected_size(self, results: dict) -> Tuple[int, int]:
        # A loaded photo knows better than the numbers in the JSON.
        if 'ori_shape' in results:
            return tuple(results['ori_shape'][:2])
        return results['height'], results['width']

    def _load_ids(self, path: str, size: Tuple[int, int]) -> np.ndarray:
        png = read_image(path, self.backend_args, backend=self.imdecode_backend)
        if png.shape[:2] != size:
            raise ValueError(f'Expected a panoptic PNG of the size of its photo, {size} (height, width), '
                             f'but {path} is {png.shape[:2]}')
        return decode_segment_ids(png)

    def _index(self, ids: np.ndarray, segments: Sequence[dict], crowd_ids: List[int],
               path: str) -> np.ndarray:
        table_ids = [segment['id'] for segment in segments]
        all_ids = [*table_ids, *crowd_ids]
        invalid = [segment_id for segment_id in all_ids if not 0 < segment_id < 256**3]
        if invalid:
            raise ValueError(f'Expected segment ids from 1 to 256^3 - 1 in the JSON for {path}, '
                             f'but got {invalid[:10]}')
        if len(set(all_ids)) < len(all_ids) or len(all_ids) > _MAX_SEGMENTS:
            raise ValueError(f'Expected at most {_MAX_SEGMENTS} segments, each with an id of its own, in the '
                             f'JSON for {path}, but got {len(all_ids)} with {len(set(all_ids))} ids')
        found = index_segments(ids, table_ids, crowd_ids)
        if not self.check_segments:
            return found.index
        if found.unknown_ids or found.unseen_ids:
            unknown, unseen = found.unknown_ids[:10] or 'none', found.unseen_ids[:10] or 'none'
            raise ValueError(f'Expected the ids in {path} to be those of its `segments_info` in the JSON, '
                             f'but the JSON lacks {unknown} and the PNG lacks {unseen}')
        for segment, area in zip(segments, found.areas.tolist()):
            if segment.get('area') not in (None, area):
                raise ValueError(
                    f'Expected segment {segment["id"]} to have the {segment["area"]} pixels that '
                    f'the JSON says, but it has {area} in {path}')
        return found.index

    def __repr__(self) -> str:
        return (f'{type(self).__name__}(check_segments={self.check_segments}, '
                f'imdecode_backend={self.imdecode_backend!r}, backend_args={self.backend_args})')
