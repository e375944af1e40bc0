"""COCO's panoptic data set."""
from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import DATASETS

from .panoptic_dataset import PanopticDataset


@DATASETS.register_module()
class CocoPanopticMapDataset(PanopticDataset):
    """COCO panoptic with 80 kinds of things and 53 kinds of stuff; mmdet has the name CocoPanopticDataset.

    Arguments and records are those of :class:`PanopticDataset`.
    """

    METAINFO = CocoPanopticDataset.METAINFO
