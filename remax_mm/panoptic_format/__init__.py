"""The COCO panoptic format: reading, checking and writing of its JSON files, PNGs and images.

Format: https://cocodataset.org/#format-data, section 4. Nothing here depends on models or datasets.
"""
from .class_order import map_categories, order_classes
from .image_files import BrokenFileError, read_image, read_photo_size
from .json_files import (annotations_by_image, check_lists, check_unique, list_some, read_panoptic_json,
                         require_keys, write_json)
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
    'map_categories', 'order_classes', 'BrokenFileError', 'read_image', 'read_photo_size',
    'annotations_by_image', 'check_lists', 'check_unique', 'list_some', 'read_panoptic_json', 'require_keys',
    'write_json', 'read_channels', 'read_label_map', 'map_images', 'PanopticAnnotation', 'get_annotation',
    'PanopticFiles', 'PanopticPair', 'read_panoptic_files', 'annotated_panoptic_map', 'check_labels',
    'number_segments', 'to_panoptic_map', 'MAX_ID', 'VOID_ID', 'read_segment_ids', 'write_segment_ids',
    'find_boxes', 'index_segments', 'number_keys', 'SegmentLabel', 'label_segments', 'ConvertedImage',
    'WrittenSplit', 'write_split'
]
