"""Input, ground truth and prediction of a panoptic model side by side."""
from typing import List, Optional, Tuple

import mmcv
import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only

from remax_mm.panoptic_format import annotated_panoptic_map, get_annotation, to_panoptic_map
from .draw_panoptic import draw_panoptic, label_panels


@VISUALIZERS.register_module()
class PanopticVisualizer(DetLocalVisualizer):
    """mmdet's visualizer with fast drawing of panoptic maps, which may contain any values.

    Draws input, ground truth and prediction side by side, with titles. The ground truth is
    ``gt_panoptic_seg.segment_map`` with ``gt_segments`` in training samples, and the annotation of
    :func:`get_annotation` in other samples. It is left out if its size is not that of the image. mmdet draws
    data samples without panoptic maps.

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
        panels = [('input', image)]
        if data_sample is not None:
            panels += self._panoptic_panels(image, data_sample.cpu(), draw_gt, draw_pred)
        if len(panels) == 1:
            super().add_datasample(name, image, data_sample, draw_gt, draw_pred, show, wait_time, out_file,
                                   pred_score_thr, step)
            return

        drawn = label_panels(panels)
        self.set_image(drawn)
        if show:
            self.show(drawn, win_name=name, wait_time=wait_time)
        if out_file is not None:
            mmcv.imwrite(drawn[..., ::-1], out_file)
        else:
            self.add_image(name, drawn, step)

    def _panoptic_panels(self, image: np.ndarray, sample: DetDataSample, draw_gt: bool,
                         draw_pred: bool) -> List[Tuple[str, np.ndarray]]:
        """Draw the panoptic maps of a data sample; return their titles and images."""
        classes = self.dataset_meta.get('classes')
        if classes is None:
            raise ValueError('Expected `classes` in the `dataset_meta` of the visualizer, but got '
                             f'{sorted(self.dataset_meta)}')
        maps = []
        if draw_gt:
            maps.append(('ground truth', self._ground_truth(sample, image.shape[:2], len(classes))))
        if draw_pred and 'pred_panoptic_seg' in sample:
            maps.append(('prediction', np.asarray(sample.pred_panoptic_seg.sem_seg)[0]))
        palette = self.dataset_meta.get('palette')
        palette = palette if isinstance(palette, (list, tuple)) else None
        return [(title, draw_panoptic(image, panoptic_map, classes, palette, self.alpha))
                for title, panoptic_map in maps if panoptic_map is not None]

    def _ground_truth(self, sample: DetDataSample, size: Tuple[int, int],
                      void_label: int) -> Optional[np.ndarray]:
        """Return the annotated panoptic map (H, W), or None if there is none of the size of the image."""
        if 'gt_panoptic_seg' in sample and 'gt_segments' in sample:
            segment_map = np.asarray(sample.gt_panoptic_seg.segment_map)[0]
            if segment_map.shape == size:
                segments = sample.gt_segments
                return to_panoptic_map(segment_map, segments.labels.tolist(), segments.is_thing.tolist(),
                                       void_label)
        annotation = get_annotation(sample)
        if annotation is None or annotation.ids.shape != size:
            return None
        return annotated_panoptic_map(annotation.ids.numpy(), annotation.segments, void_label)
