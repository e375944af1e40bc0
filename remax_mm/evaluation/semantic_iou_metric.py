"""Mean IoU of a panoptic model's semantic map, by mmseg's metric."""
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np
import torch
from mmdet.registry import METRICS
from mmseg.evaluation import IoUMetric

from remax_mm.panoptic_format import index_segments
from .annotation import Annotation, read_annotation, thing_flags

IGNORED = -1
"""Label of the pixels that do not count; unlike 255 it is never a class."""


def annotated_semantic_map(annotation: Annotation, ignore_crowd: bool = True) -> np.ndarray:
    """Class of every pixel of a panoptic annotation.

    Args:
        annotation: Segments of one image.
        ignore_crowd: Whether the pixels of crowd regions do not count, as unlabeled ones never do.

    Returns:
        (H, W) int64 labels in [0, K), ``IGNORED`` where unlabeled or of an id that is not listed.
    """
    segments = [segment for segment in annotation.segments if not (ignore_crowd and segment['iscrowd'])]
    index = index_segments(annotation.ids, [segment['id'] for segment in segments]).segment_map
    return np.array([IGNORED, *(segment['category'] for segment in segments)], dtype=np.int64)[index]


@METRICS.register_module()
class PanopticSemanticIoUMetric(IoUMetric):
    """mmseg's ``IoUMetric`` on a panoptic dataset; the numbers are mmseg's.

    Needs of each data sample ``pred_sem_seg.sem_seg`` (1, H, W) of the annotated size
    (``test_cfg.semantic_on=True``), ``seg_map_path`` and ``segments_info``. Keys are ``semantic/mIoU``,
    ``semantic/mAcc`` and ``semantic/aAcc``; mmseg logs a table of the classes in any case.

    Args:
        classwise: Also give ``IoU/<class>``, and the like, of every class that occurs.
        ignore_crowd: Whether the pixels of crowd regions do not count. Cityscapes' own evaluation, and the
            semantic maps that Mask2Former makes of COCO's panoptic ones, count them as their class.
        iou_metrics: ``'mIoU'``, ``'mDice'`` and ``'mFscore'``, one or a list.
        nan_to_num: Number in place of the quality of a class that does not occur.
        beta: Weight of the recall in the F score.
        backend_args: Arguments of the storage backend of the annotated PNGs.
        collect_device: ``'cpu'`` or ``'gpu'``, where the counts of the ranks are gathered.
        prefix: Prefix of the keys, ``semantic`` where None.

    Raises:
        ValueError: a data sample lacks what is needed, or the maps differ in size.
    """
    default_prefix = 'semantic'

    def __init__(self,
                 classwise: bool = False,
                 ignore_crowd: bool = True,
                 iou_metrics: Sequence[str] = ('mIoU', ),
                 nan_to_num: Optional[float] = None,
                 beta: float = 1,
                 backend_args: Optional[dict] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(
            ignore_index=IGNORED,
            iou_metrics=iou_metrics,
            nan_to_num=nan_to_num,
            beta=beta,
            collect_device=collect_device,
            prefix=prefix)
        self.classwise = classwise
        self.ignore_crowd = ignore_crowd
        self.backend_args = backend_args

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of each class of a batch."""
        super().process(data_batch, [self._adapt(sample) for sample in data_samples])

    def _adapt(self, sample: Mapping) -> Dict[str, Any]:
        """The predicted and the annotated map, as mmseg's metric reads them."""
        if 'pred_sem_seg' not in sample:
            raise ValueError(f'Expected `pred_sem_seg` of {sample.get("img_path")}, but there is none: set '
                             '`test_cfg.semantic_on=True`')
        predicted = sample['pred_sem_seg']['sem_seg'].squeeze(0).long()
        annotation = read_annotation(sample, thing_flags(self.dataset_meta), self.backend_args)
        if tuple(predicted.shape) != annotation.ids.shape:
            raise ValueError(f'Expected a semantic map of the size {annotation.ids.shape} of '
                             f'{sample["seg_map_path"]}, but got {tuple(predicted.shape)}')
        annotated = torch.from_numpy(annotated_semantic_map(annotation, self.ignore_crowd))
        return dict(pred_sem_seg=dict(data=predicted), gt_sem_seg=dict(data=annotated))

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Metrics of all images, gathered over the ranks."""
        metrics = super().compute_metrics(results)
        if self.classwise:
            areas = (sum(image_areas) for image_areas in zip(*results))
            of_class = self.total_area_to_metrics(*areas, self.metrics, self.nan_to_num, self.beta)
            del of_class['aAcc']
            for name, values in of_class.items():
                metrics.update({
                    f'{name}/{self.dataset_meta["classes"][label]}': 100 * float(values[label])
                    for label in np.flatnonzero(~np.isnan(values))
                })
        return metrics
