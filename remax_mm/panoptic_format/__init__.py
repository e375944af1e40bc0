"""The COCO panoptic format: JSON, PNG, segment ids and indices, categories, image files.

https://cocodataset.org/#format-data, section 4. Nothing here knows about models or datasets.
"""
from .class_order import check_unique, list_some, map_categories, order_classes
from .image_files import BrokenFileError, decode_image, read_image
from .label_maps import read_channels, read_label_map, read_photo_size
from .map_images import map_images
from .panoptic_annotation import PanopticAnnotation, get_annotation
from .panoptic_files import PanopticFiles, PanopticPair, read_panoptic_files
from .panoptic_map import annotated_panoptic_map, check_labels, number_segments, to_panoptic_map
from .segment_ids import VOID_ID, decode_segment_ids, encode_segment_ids, read_segment_ids, write_segment_ids
from .segment_index import SegmentIndex, index_segments, number_keys
from .segments_info import SegmentLabel, describe_segments
from .split_writer import UNFINISHED, ConvertedImage, WrittenSplit, write_json, write_split

__all__ = [
    'check_unique', 'list_some', 'map_categories', 'order_classes', 'BrokenFileError', 'decode_image',
    'read_image', 'read_channels', 'read_label_map', 'read_photo_size', 'map_images', 'PanopticAnnotation',
    'get_annotation', 'PanopticFiles', 'PanopticPair', 'read_panoptic_files', 'annotated_panoptic_map',
    'check_labels', 'number_segments', 'to_panoptic_map', 'VOID_ID', 'decode_segment_ids',
    'encode_segment_ids', 'read_segment_ids', 'write_segment_ids', 'SegmentIndex', 'index_segments',
    'number_keys', 'SegmentLabel', 'describe_segments', 'UNFINISHED', 'ConvertedImage', 'WrittenSplit',
    'write_json', 'write_split'
]
