from .ade20k_panoptic import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset
from .cityscapes_panoptic import CityscapesPanopticMapDataset
from .coco_panoptic import CocoPanopticMapDataset
from .mini_panoptic import PRESETS, CrowdedPanopticMapDataset, MiniPanopticMapDataset, write_mini_panoptic
from .own_example import write_own_example
from .panoptic_dataset import PanopticMapDataset
from .transforms import (ColorPolicy, LoadImageStrict, LoadPanopticMap, LoadSegmentIds, PackPanopticInputs,
                         PanopticCopyPaste, RandomPad)

__all__ = [
    'ADE20KPanopticMapDataset', 'SCENE_PARSING_CLASSES', 'CityscapesPanopticMapDataset',
    'CocoPanopticMapDataset', 'ColorPolicy', 'CrowdedPanopticMapDataset', 'PRESETS', 'LoadImageStrict',
    'LoadPanopticMap', 'LoadSegmentIds', 'MiniPanopticMapDataset', 'PackPanopticInputs', 'PanopticCopyPaste',
    'PanopticMapDataset', 'RandomPad', 'write_mini_panoptic', 'write_own_example'
]
