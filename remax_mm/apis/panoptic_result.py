"""The segments of one image, their overlay, and the files that hold them."""
from pathlib import Path
from typing import Any, Collection, Dict, List, Mapping, NamedTuple, Optional, Union

import mmcv
import numpy as np
from mmdet.evaluation import INSTANCE_OFFSET
from mmdet.structures import DetDataSample
from mmengine.fileio import dump

from remax_mm.panoptic_format import VOID_ID, number_segments, to_panoptic_map, write_segment_ids
from remax_mm.visualization import class_colors, draw_panoptic, enlarge_small


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


def result_of(sample: DetDataSample,
              image_path: Optional[str],
              dataset_meta: Mapping[str, Any],
              score_thr: float = 0.) -> PanopticResult:
    """Number the predicted segments of an image and describe them.

    Args:
        sample: With ``pred_panoptic_seg``, as a panoptic model returns it.
        image_path: File or URL of the image.
        dataset_meta: ``classes`` and ``thing_classes`` of the model.
        score_thr: Segments with a lower score become void.

    Raises:
        ValueError: ``score_thr`` is above 0, but the prediction has no scores.
    """
    classes, things = dataset_meta['classes'], set(dataset_meta['thing_classes'])
    predicted = sample.pred_panoptic_seg
    score_of = {segment['id']: segment['score'] for segment in predicted.get('segments_info', ())}
    panoptic_map = predicted.sem_seg[0].cpu().numpy()
    if score_thr > 0:
        panoptic_map = _drop_low_scores(panoptic_map, score_of, score_thr, len(classes))

    segment_map, segments = number_segments(panoptic_map, len(classes))
    segments_info = []
    for segment in segments:
        name = classes[segment['label']]
        segments_info.append(
            dict(
                id=segment['id'],
                label=segment['label'],
                class_name=name,
                is_thing=name in things,
                score=score_of.get(segment['value']),
                area=segment['area'],
                bbox=segment['bbox']))
    return PanopticResult(image_path, segment_map, segments_info)


def _drop_low_scores(panoptic_map: np.ndarray, score_of: Mapping[int, float], score_thr: float,
                     num_classes: int) -> np.ndarray:
    """Make the segments with a lower score void."""
    values = [value for value in np.unique(panoptic_map).tolist() if value % INSTANCE_OFFSET != num_classes]
    if not set(values) <= set(score_of):
        raise ValueError('Expected a model that scores its segments, because `pred_score_thr` is above 0, '
                         'but its prediction has no `segments_info`')
    low = [value for value in values if score_of[value] < score_thr]
    return np.where(np.isin(panoptic_map, low), num_classes, panoptic_map)


def draw_result(image: np.ndarray,
                result: PanopticResult,
                dataset_meta: Mapping[str, Any],
                alpha: float = 0.6) -> np.ndarray:
    """Overlay of a result on its image, see :func:`draw_panoptic`.

    Args:
        image: (H, W, 3) uint8 RGB.
        result: Its segments. The number of a thing is the ``id`` of its segment.
        dataset_meta: ``classes`` and ``palette`` of the model.
        alpha: Weight of the colors in [0, 1].

    Returns:
        (H', W', 3) uint8 RGB; small images are enlarged, see :func:`enlarge_small`.
    """
    # The ids of the result of a part of the segments, or of a video, have gaps.
    classes = dataset_meta['classes']
    number = max((segment['id'] for segment in result.segments_info), default=0)
    labels, is_thing = [len(classes)] * number, [False] * number
    for segment in result.segments_info:
        labels[segment['id'] - 1], is_thing[segment['id'] - 1] = segment['label'], segment['is_thing']
    values = to_panoptic_map(np.arange(number + 1), labels, is_thing, len(classes))
    return draw_panoptic(
        enlarge_small(image),
        enlarge_small(values[result.segment_map], is_map=True),
        classes,
        class_colors(dataset_meta),
        alpha,
        scores={int(values[segment['id']]): segment['score']
                for segment in result.segments_info})


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
