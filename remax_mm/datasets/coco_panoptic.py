"""The COCO panoptic dataset."""
from mmdet.datasets import CocoPanopticDataset
from mmdet.registry import DATASETS

from .panoptic_dataset import PanopticMapDataset


@DATASETS.register_module()
class CocoPanopticMapDataset(PanopticMapDataset):
    """COCO with 80 thing and 53 stuff classes; mmdet has another class named CocoPanopticDataset.

    Arguments and records are those of :class:`PanopticMapDataset`.
    """

    METAINFO = CocoPanopticDataset.METAINFO
