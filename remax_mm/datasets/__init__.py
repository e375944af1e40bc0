from .ade20k_panoptic import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset
from .cityscapes_panoptic import CityscapesPanopticDataset
from .coco_panoptic import CocoPanopticMapDataset
from .mini_panoptic import MiniPanopticDataset, write_mini_panoptic
from .panoptic_dataset import PanopticDataset
from .transforms import (ColorPolicy, LoadIntactImage, LoadPanopticMap, PackPanopticInputs, PanopticCopyPaste,
                         RandomPad)

__all__ = [
    'ADE20KPanopticMapDataset', 'SCENE_PARSING_CLASSES', 'CityscapesPanopticDataset',
    'CocoPanopticMapDataset', 'ColorPolicy', 'LoadIntactImage', 'LoadPanopticMap', 'MiniPanopticDataset',
    'PackPanopticInputs', 'PanopticCopyPaste', 'PanopticDataset', 'RandomPad', 'write_mini_panoptic'
]
