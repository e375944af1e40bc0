from .comparison import Spread, compare_runs, format_comparison, measure_spread, read_final_metrics
from .complexity import (Complexity, PartComplexity, count_macs, count_parameters, format_complexity,
                         inference_copy, measure_complexity, measure_config)
from .loss_balance import (LossParts, format_loss_balance, logarithmic_edges, split_sigmoid_cross_entropy,
                           split_softmax_cross_entropy, summarize_loss_balance)
from .model_loss_balance import (collect_loss_balance, collect_query_balance, measure_loss_balance,
                                 split_mask_id_loss)
from .panoptic_dataset_check import (KINDS, Category, Finding, ImageTask, check_classes, check_json,
                                     find_unused_pngs)
from .panoptic_dataset_report import DatasetReport, format_report, report_as_dict, summarise_dataset
from .panoptic_error_report import errors_as_dict, format_errors
from .panoptic_errors import ImageErrors, SegmentError, find_errors, inspect_pair, worst_images
from .panoptic_image_check import ImageReport, check_image
from .training_overhead import (InferenceDifference, Overhead, StepCost, build_training_step, compare_costs,
                                compare_inference, measure_steps)

__all__ = [
    'InferenceDifference', 'Overhead', 'StepCost', 'build_training_step', 'compare_costs',
    'compare_inference', 'measure_steps', 'ImageErrors', 'SegmentError', 'errors_as_dict', 'find_errors',
    'format_errors', 'inspect_pair', 'worst_images', 'KINDS', 'Category', 'Finding', 'ImageReport',
    'ImageTask', 'check_classes', 'check_image', 'check_json', 'find_unused_pngs', 'DatasetReport',
    'format_report', 'report_as_dict', 'summarise_dataset', 'Spread', 'compare_runs', 'format_comparison',
    'measure_spread', 'read_final_metrics', 'Complexity', 'PartComplexity', 'count_macs', 'count_parameters',
    'format_complexity', 'inference_copy', 'measure_complexity', 'measure_config', 'LossParts',
    'collect_loss_balance', 'collect_query_balance', 'format_loss_balance', 'logarithmic_edges',
    'measure_loss_balance', 'split_mask_id_loss', 'split_sigmoid_cross_entropy',
    'split_softmax_cross_entropy', 'summarize_loss_balance'
]
