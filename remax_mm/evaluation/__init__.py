"""Panoptic quality by the rules of panopticapi, AP, mIoU, and error analysis."""
from .instance_ap_metric import PanopticInstanceAPMetric
from .panoptic_error_report import errors_as_dict, format_errors
from .panoptic_errors import ImageErrors, SegmentError, find_errors, inspect_pair, worst_images
from .panoptic_pairs import count_pair, overlap_pair
from .panoptic_quality import class_quality, count_segments, mean_quality
from .panoptic_quality_metric import PanopticQualityMetric
from .segment_matching import joint_histogram, match_segments, segment_ious
from .semantic_iou_metric import PanopticSemanticIoUMetric

__all__ = [
    'PanopticInstanceAPMetric', 'errors_as_dict', 'format_errors', 'ImageErrors', 'SegmentError',
    'find_errors', 'inspect_pair', 'worst_images', 'count_pair', 'overlap_pair', 'class_quality',
    'count_segments', 'mean_quality', 'PanopticQualityMetric', 'joint_histogram', 'match_segments',
    'segment_ious', 'PanopticSemanticIoUMetric'
]
