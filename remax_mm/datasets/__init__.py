from .coco_panoptic import CocoPanopticMapDataset
from .transforms import LoadPanopticMap, PackPanopticInputs

__all__ = ['CocoPanopticMapDataset', 'LoadPanopticMap', 'PackPanopticInputs']
