"""Checks of a panoptic dataset before it is used for training or evaluation."""
from .check_dataset import check_dataset
from .dataset_report import DatasetReport, format_report, report_as_dict, summarize_dataset
from .image_check import ImageReport, check_image
from .json_check import Category, ImageTask, check_classes, check_json

__all__ = [
    'check_dataset', 'DatasetReport', 'format_report', 'report_as_dict', 'summarize_dataset', 'ImageReport',
    'check_image', 'Category', 'ImageTask', 'check_classes', 'check_json'
]
