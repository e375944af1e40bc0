from .kmax_head import KMaXHead
from .panoptic_fusion_head import KMaXFusionHead, Segment, fuse_instances, fuse_panoptic, fuse_semantic
from .semantic_head import ASPPSemanticHead, SimpleSemanticHead, StageSemanticHead

__all__ = [
    'ASPPSemanticHead', 'KMaXFusionHead', 'KMaXHead', 'Segment', 'fuse_instances', 'fuse_panoptic',
    'fuse_semantic', 'SimpleSemanticHead', 'StageSemanticHead'
]
