"""The segments of one image, and the files that hold them."""
from pathlib import Path
from typing import Any, Collection, Dict, List, NamedTuple, Optional, Union

import mmcv
import numpy as np
from mmengine.fileio import dump

from remax_mm.panoptic_format import VOID_ID, write_segment_ids


class PanopticResult(NamedTuple):
    """Segments of one image.

    Attributes:
        image_path: File or URL of the image, None for an array or PIL image.
        segment_map: (H, W) int32 at the size of the image; 0 is void, other values are segment ids.
        segments_info: A dict per segment: ``id`` (1, 2, ...), ``label`` in [0, K), ``class_name``,
            ``is_thing``, ``score`` in [0, 1] (None if the model predicts none), ``area`` in pixels and
            ``bbox`` (x, y, width, height).
    """
    image_path: Optional[str]
    segment_map: np.ndarray
    segments_info: List[Dict[str, Any]]


def keep_segments(result: PanopticResult, ids: Collection[int]) -> PanopticResult:
    """A result with only the segments of some ids; the others become void."""
    kept = [segment for segment in result.segments_info if segment['id'] in ids]
    is_kept = np.isin(result.segment_map, [segment['id'] for segment in kept])
    return result._replace(segment_map=np.where(is_kept, result.segment_map, VOID_ID), segments_info=kept)


def save_segments(result: PanopticResult, out_dir: Union[str, Path], name: str) -> List[Path]:
    """Write ``<name>_panoptic.png`` (segment ids) and ``<name>.json`` (segments).

    Args:
        result: Segments of an image.
        out_dir: Folder, created if it does not exist.
        name: Start of the file names.

    Returns:
        The two files.
    """
    png, json = Path(out_dir) / f'{name}_panoptic.png', Path(out_dir) / f'{name}.json'
    write_segment_ids(png, result.segment_map)
    dump(describe(result, png.name), json, indent=2)
    return [png, json]


def describe(result: PanopticResult, panoptic_png: str) -> Dict[str, Any]:
    """Content of the JSON file of a result, whose segment ids are in ``panoptic_png``."""
    height, width = result.segment_map.shape
    return dict(
        image=result.image_path,
        height=height,
        width=width,
        panoptic_png=panoptic_png,
        segments_info=result.segments_info)


def save_overlay(overlay: np.ndarray, out_dir: Union[str, Path], name: str) -> Path:
    """Write ``<name>_overlay.png``, an overlay (H, W, 3) uint8 in RGB order, and return the file."""
    path = Path(out_dir) / f'{name}_overlay.png'
    if not mmcv.imwrite(overlay[..., ::-1], str(path)):
        raise OSError(f'Cannot write the overlay {path}')
    return path
