"""The COCO panoptic format: reading, checking and writing of its JSON files, PNGs and images.

Format: https://cocodataset.org/#format-data, section 4. Nothing here depends on models or datasets.
"""
from .annotation_checks import check_entries
from .annotation_schema import (AnnotationContent, AnnotationFile, EvaluatedFile, ImageFile, LoadedFile,
                                PredictionFile, read_annotations)
from .class_order import count_classes, map_categories, order_classes
from .file_content import BrokenFileError, join_path, read_file
from .findings import KINDS, Finding, Kind, raise_errors
from .garbage_collection import without_garbage_collection
from .image_files import read_image, read_photo_size
from .json_files import check_unique, list_some, write_json
from .label_maps import read_channels, read_label_map
from .map_images import map_images
from .panoptic_annotation import PanopticAnnotation, get_annotation
from .panoptic_files import PanopticFiles, PanopticPair, read_panoptic_files
from .panoptic_map import annotated_panoptic_map, check_labels, number_segments, to_panoptic_map
from .segment_ids import MAX_ID, VOID_ID, read_segment_ids, write_segment_ids
from .segment_index import find_boxes, index_segments, number_keys
from .segments_info import SegmentLabel, label_segments
from .split_writer import ConvertedImage, WrittenSplit, write_split

__all__ = [
    'check_entries', 'AnnotationContent', 'AnnotationFile', 'EvaluatedFile', 'ImageFile', 'LoadedFile',
    'PredictionFile', 'read_annotations', 'count_classes', 'map_categories', 'order_classes',
    'BrokenFileError', 'join_path', 'read_file', 'KINDS', 'Finding', 'Kind', 'raise_errors', 'read_image',
    'read_photo_size', 'check_unique', 'list_some', 'write_json', 'read_channels', 'read_label_map',
    'map_images', 'PanopticAnnotation', 'get_annotation', 'PanopticFiles', 'PanopticPair',
    'read_panoptic_files', 'annotated_panoptic_map', 'check_labels', 'number_segments', 'to_panoptic_map',
    'MAX_ID', 'VOID_ID', 'read_segment_ids', 'write_segment_ids', 'find_boxes', 'index_segments',
    'number_keys', 'SegmentLabel', 'label_segments', 'ConvertedImage', 'WrittenSplit', 'write_split',
    'without_garbage_collection'
]
