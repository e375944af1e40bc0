from .kmax_head import KMaXHead
from .panoptic_fusion_head import KMaXFusionHead, Segment, fuse_instances, fuse_panoptic, fuse_semantic

__all__ = ['KMaXFusionHead', 'KMaXHead', 'Segment', 'fuse_instances', 'fuse_panoptic', 'fuse_semantic']
