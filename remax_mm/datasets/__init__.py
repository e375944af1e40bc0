from .cityscapes_panoptic import CityscapesPanopticDataset
from .coco_panoptic import CocoPanopticMapDataset
from .mini_panoptic import MiniPanopticDataset, write_mini_panoptic
from .transforms import LoadPanopticMap, PackPanopticInputs, RandomPad

__all__ = [
    'CityscapesPanopticDataset', 'CocoPanopticMapDataset', 'LoadPanopticMap', 'MiniPanopticDataset',
    'PackPanopticInputs', 'RandomPad', 'write_mini_panoptic'
]
