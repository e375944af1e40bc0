"""Converters of original downloads and of masks to the COCO panoptic format."""
from .convert_ade20k import convert_ade20k
from .convert_cityscapes import convert_cityscapes
from .convert_masks import MaskSource, convert_masks, unused_semantic_pngs

__all__ = ['convert_ade20k', 'convert_cityscapes', 'MaskSource', 'convert_masks', 'unused_semantic_pngs']
