"""Input, ground truth and prediction of a panoptic model side by side."""
from typing import List, Optional, Tuple

import mmcv
import numpy as np
from mmdet.registry import VISUALIZERS
from mmdet.structures import DetDataSample
from mmdet.visualization import DetLocalVisualizer
from mmengine.dist import master_only

from remax_mm.panoptic_format import annotated_panoptic_map, read_segment_ids, to_panoptic_map
from .draw_panoptic import draw_panoptic, label_panels


@VISUALIZERS.register_module()
class PanopticVisualizer(DetLocalVisualizer):
    """mmdet's visualizer with panoptic maps that are drawn fast and whatever they hold.

    Draws input | ground truth | prediction under titles. The ground truth is ``gt_panoptic_seg.segment_map``
    with ``gt_segments``; a data sample without it, or with a resized one, shows its annotated PNG
    (``seg_map_path`` and ``segments_info``). Data samples without anything panoptic are drawn by mmdet.

    The arguments are those of :class:`mmdet.visualization.DetLocalVisualizer`; ``alpha`` is the weight of the
    colors. ``dataset_meta`` must hold ``classes``; its ``palette`` is used where it is a list of colors.
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
        """Draw a data sample and show it, write it to a file or give it to the storage backends.

        Args:
            name: Identifier of the image, title of the window.
            image: (H, W, 3), RGB in [0, 255].
            data_sample: Annotation and prediction; None draws the image alone.
            draw_gt: Whether to draw the ground truth.
            draw_pred: Whether to draw the prediction.
            show: Whether to open a window.
            wait_time: Seconds until the window closes, 0 waits for a key.
            out_file: File to write; the storage backends get the image where None.
            pred_score_thr: For what mmdet draws; the panoptic fusion has its own thresholds.
            step: Step for the storage backends.
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
        """Titles and images of what the data sample holds."""
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
        """(H, W) panoptic map of the annotation at the size of the image; None where there is none."""
        if 'gt_panoptic_seg' in sample and 'gt_segments' in sample:
            segment_map = np.asarray(sample.gt_panoptic_seg.segment_map)[0]
            if segment_map.shape == size:
                segments = sample.gt_segments
                return to_panoptic_map(segment_map, segments.labels.tolist(), segments.is_thing.tolist(),
                                       void_label)
        if sample.get('seg_map_path') is None or sample.get('segments_info') is None:
            return None
        ids = read_segment_ids(sample.seg_map_path)
        return annotated_panoptic_map(ids, sample.segments_info, void_label) if ids.shape == size else None
