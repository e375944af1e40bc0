"""Panoptic quality by panopticapi's rules, AP and mIoU beside it, and the COCO panoptic format."""
from .instance_ap_metric import PanopticInstanceAPMetric
from .panoptic_png import number_segments, read_segment_ids, write_segment_ids
from .panoptic_quality import class_quality, count_segments, mean_quality
from .panoptic_quality_metric import PanopticQualityMetric
from .segment_matching import joint_histogram, match_segments, segment_ious
from .semantic_iou_metric import PanopticSemanticIoUMetric

__all__ = [
    'PanopticInstanceAPMetric', 'PanopticQualityMetric', 'PanopticSemanticIoUMetric', 'class_quality',
    'count_segments', 'joint_histogram', 'match_segments', 'mean_quality', 'number_segments',
    'read_segment_ids', 'segment_ious', 'write_segment_ids'
]
