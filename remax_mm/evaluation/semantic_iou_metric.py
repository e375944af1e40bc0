"""Mean IoU of the semantic map of a panoptic model, computed by mmseg's metric."""
from typing import Any, Dict, Mapping, Optional, Sequence

import numpy as np
import torch
from mmdet.registry import METRICS
from mmseg.evaluation import IoUMetric

from remax_mm.panoptic_format import PanopticAnnotation, index_segments
from .annotation import require_annotation, thing_flags

IGNORED = -1
"""Label of the pixels that do not count. Other than 255, it is never a class."""


def annotated_semantic_map(annotation: PanopticAnnotation, ignore_crowd: bool = True) -> np.ndarray:
    """Return the class of each pixel of a panoptic annotation.

    Args:
        annotation: The segments of one image.
        ignore_crowd: Whether pixels of crowd regions become ``IGNORED``.

    Returns:
        (H, W) int64 labels in [0, K). Unlabeled pixels and pixels of ids that are not listed are ``IGNORED``.
    """
    segments = [segment for segment in annotation.segments if not (ignore_crowd and segment['iscrowd'])]
    index = index_segments(annotation.ids.numpy(), [segment['id'] for segment in segments]).segment_map
    return np.array([IGNORED, *(segment['category'] for segment in segments)], dtype=np.int64)[index]


@METRICS.register_module()
class PanopticSemanticIoUMetric(IoUMetric):
    """Apply mmseg's ``IoUMetric`` to a panoptic dataset.

    Each data sample needs ``pred_sem_seg.sem_seg``, (1, H, W) at the size of the annotation
    (``test_cfg.semantic_on=True``), and an annotation as for :class:`PanopticQualityMetric`. The keys are
    ``semantic/mIoU``, ``semantic/mAcc`` and ``semantic/aAcc``. mmseg always logs a table of the classes.

    Args:
        classwise: Also return ``IoU/<class>`` and ``Acc/<class>`` of each annotated or predicted class.
        ignore_crowd: Whether pixels of crowd regions do not count. They count as their class in the official
            evaluation of Cityscapes and in the semantic maps that Mask2Former computes from COCO panoptic.
        backend_args: Arguments of the storage backend of the annotated PNGs.
        collect_device: ``'cpu'`` or ``'gpu'``, the device on which the counts of all ranks are gathered.
        prefix: Prefix of the keys, ``semantic`` if None.

    Raises:
        ValueError: A data sample lacks the prediction or the annotation, or the maps differ in size.
    """
    default_prefix = 'semantic'

    def __init__(self,
                 classwise: bool = False,
                 ignore_crowd: bool = True,
                 backend_args: Optional[dict] = None,
                 collect_device: str = 'cpu',
                 prefix: Optional[str] = None) -> None:
        super().__init__(ignore_index=IGNORED, collect_device=collect_device, prefix=prefix)
        self.classwise = classwise
        self.ignore_crowd = ignore_crowd
        self.backend_args = backend_args

    def process(self, data_batch: Any, data_samples: Sequence[dict]) -> None:
        """Count the pixels of each class of a batch."""
        super().process(data_batch, [self._adapt(sample) for sample in data_samples])

    def _adapt(self, sample: Mapping) -> Dict[str, Any]:
        """Return the predicted and the annotated map in the form that mmseg's metric takes."""
        if 'pred_sem_seg' not in sample:
            raise ValueError(f'Expected `pred_sem_seg` of {sample.get("img_path")}, but there is none: set '
                             '`test_cfg.semantic_on=True`')
        predicted = sample['pred_sem_seg']['sem_seg'].squeeze(0).long()
        annotation = require_annotation(sample, thing_flags(self.dataset_meta), self.backend_args)
        if predicted.shape != annotation.ids.shape:
            raise ValueError(f'Expected a semantic map of the size {tuple(annotation.ids.shape)} of '
                             f'{sample.get("seg_map_path")}, but got {tuple(predicted.shape)}')
        annotated = torch.from_numpy(annotated_semantic_map(annotation, self.ignore_crowd))
        return dict(pred_sem_seg=dict(data=predicted), gt_sem_seg=dict(data=annotated))

    def compute_metrics(self, results: list) -> Dict[str, float]:
        """Compute the metrics of all images, gathered from all ranks."""
        metrics = super().compute_metrics(results)
        if self.classwise:
            areas = (sum(image_areas) for image_areas in zip(*results))
            of_class = self.total_area_to_metrics(*areas, self.metrics)
            del of_class['aAcc']
            for name, values in of_class.items():
                metrics.update({
                    f'{name}/{self.dataset_meta["classes"][label]}': 100 * float(values[label])
                    for label in np.flatnonzero(~np.isnan(values))
                })
        return metrics
