"""Converters of original downloads, of masks and of annotation tools' files to the COCO panoptic format."""
from .convert_ade20k import convert_ade20k
from .convert_annotations import FORMATS, AnnotationSource, convert_annotations
from .convert_cityscapes import convert_cityscapes
from .convert_masks import MaskSource, convert_masks, unused_semantic_pngs
from .shapes import DrawingRules

__all__ = [
    'FORMATS', 'AnnotationSource', 'DrawingRules', 'MaskSource', 'convert_ade20k', 'convert_annotations',
    'convert_cityscapes', 'convert_masks', 'unused_semantic_pngs'
]
