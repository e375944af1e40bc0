"""Input, ground truth and prediction of a panoptic model side by side."""
from typing import Dict, List, Mapping, Optional, Tuple

import cv2
import mmcv
import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only

from remax_mm.panoptic_format import annotated_panoptic_map, get_annotation, to_panoptic_map
from .colors import class_colors
from .draw_panoptic import draw_panoptic
from .panels import enlarge_small, label_panels


@VISUALIZERS.register_module()
class PanopticVisualizer(DetLocalVisualizer):
    """mmdet's visualizer with fast drawing of panoptic maps, which may contain any values.

    Draws input, ground truth and prediction side by side, with titles; small images are enlarged. The ground
    truth is ``gt_panoptic_seg.segment_map`` with ``gt_segments`` in training samples, and the annotation of
    :func:`get_annotation` in other samples, resized as the image was (:func:`fit_to_input`). mmdet draws data
    samples without panoptic maps.

    The arguments are those of :class:`mmdet.visualization.DetLocalVisualizer`; ``alpha`` is the weight of the
    colors. ``dataset_meta`` must contain ``classes``; its ``palette`` is used if it is a list of colors.
    """

    @master_only
    def add_datasample(self,
                       name: str,
                       image: np.ndarray,
                       data_sample: Optional[DetDataSample] = None,
                       draw_gt: bool = True,
                       draw_pred: bool = True,
                       show: bool = False,
                       wait_time: float = 0,
                       out_file: Optional[str] = None,
                       pred_score_thr: float = 0.3,
                       step: int = 0) -> None:
        """Draw a data sample. Show it, and write it to a file or to the visualizer's storage backends.

        Args:
            name: Name of the image and title of the window.
            image: (H, W, 3) RGB, values in [0, 255].
            data_sample: Annotation and prediction; None draws only the image.
            draw_gt: Whether to draw the ground truth.
            draw_pred: Whether to draw the prediction.
            show: Whether to open a window.
            wait_time: Seconds until the window closes; 0 waits for a key.
            out_file: File to write; None writes to the storage backends.
            pred_score_thr: Score threshold for data samples that mmdet draws.
            step: Step that the storage backends record.
        """
        image = image.clip(0, 255).astype(np.uint8)
        sample = None if data_sample is None else data_sample.cpu()
        if sample is None or not _is_panoptic(sample):
            super().add_datasample(name, image, data_sample, draw_gt, draw_pred, show, wait_time, out_file,
                                   pred_score_thr, step)
            return

        drawn = label_panels(self._panels(image, sample, draw_gt, draw_pred))
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step)

    def _panels(self, image: np.ndarray, sample: DetDataSample, draw_gt: bool,
                draw_pred: bool) -> List[Tuple[str, np.ndarray]]:
        """Draw the panoptic maps of a data sample; return the titles and images of all panels."""
        colors, classes = class_colors(self.dataset_meta), self.dataset_meta['classes']
        maps: List[Tuple[str, Optional[np.ndarray], Dict[int, float]]] = []
        if draw_gt:
            maps.append(('ground truth', ground_truth(sample, image.shape[:2], len(classes)), {}))
        if draw_pred and 'pred_panoptic_seg' in sample:
            predicted = sample.pred_panoptic_seg
            scores = {segment['id']: segment['score'] for segment in predicted.get('segments_info', ())}
            maps.append(('prediction', np.asarray(predicted.sem_seg)[0], scores))

        enlarged = enlarge_small(image)
        panels = [('input', enlarged)]
        for title, panoptic_map, scores in maps:
            if panoptic_map is not None:
                panoptic_map = enlarge_small(panoptic_map, is_map=True)
                drawn = draw_panoptic(enlarged, panoptic_map, classes, colors, self.alpha, scores)
                panels.append((title, drawn))
        return panels


def ground_truth(sample: DetDataSample, size: Tuple[int, int], void_label: int) -> Optional[np.ndarray]:
    """The annotated panoptic map of a data sample on its image.

    Args:
        sample: From a training or a test pipeline.
        size: Height and width of the image: of the photo, or of the input of the network.
        void_label: K.

    Returns:
        (H, W) label + 1000 * instance, or None if there is no annotation for an image of this size.
    """
    if 'gt_panoptic_seg' in sample and 'gt_segments' in sample:
        segment_map = np.asarray(sample.gt_panoptic_seg.segment_map)[0]
        if segment_map.shape == size:
            segments = sample.gt_segments
            return to_panoptic_map(segment_map, segments.labels.tolist(), segments.is_thing.tolist(),
                                   void_label)
    annotation = get_annotation(sample)
    if annotation is None:
        return None
    ids = fit_to_input(np.asarray(annotation.ids), sample.metainfo, size)
    return None if ids is None else annotated_panoptic_map(ids, annotation.segments, void_label)


def fit_to_input(ids: np.ndarray, metainfo: Mapping, size: Tuple[int, int]) -> Optional[np.ndarray]:
    """Resize and pad an annotation as a test pipeline did with its image.

    Args:
        ids: (H, W) segment ids at the size of the photo.
        metainfo: ``scale_factor`` (of width and height) and ``flip``; both optional.
        size: Height and width of the image.

    Returns:
        The map at this size, padded with 0 at the right and at the bottom, or None if the image is not the
        whole photo, such as a crop, or is flipped.
    """
    if ids.shape == size:
        return ids
    if 'scale_factor' not in metainfo or metainfo.get('flip'):
        return None
    width_scale, height_scale = metainfo['scale_factor'][:2]
    resized = round(ids.shape[1] * width_scale), round(ids.shape[0] * height_scale)
    ids = cv2.resize(ids, resized, interpolation=cv2.INTER_NEAREST)
    padding = [length - own for length, own in zip(size, ids.shape)]
    return None if min(padding) < 0 else np.pad(ids, [(0, pixels) for pixels in padding])


def _is_panoptic(sample: DetDataSample) -> bool:
    """Whether a data sample has a panoptic annotation or prediction."""
    keys = ('gt_panoptic_seg', 'gt_annotation', 'segments_info', 'pred_panoptic_seg')
    return any(key in sample for key in keys)
