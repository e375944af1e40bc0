"""COCO's panoptic dataset."""
from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import DATASETS

from .panoptic_dataset import PanopticMapDataset


@DATASETS.register_module()
class CocoPanopticMapDataset(PanopticMapDataset):
    """COCO panoptic with 80 kinds of things and 53 kinds of stuff; mmdet has the name CocoPanopticDataset.

    Arguments and records are those of :class:`PanopticMapDataset`.
    """

    METAINFO = CocoPanopticDataset.METAINFO
