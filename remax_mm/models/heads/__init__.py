from .fuse_semantic import fuse_semantic
from .kmax_fusion_head import KMaXFusionHead, fuse_panoptic
from .kmax_head import KMaXHead
from .max_deeplab_fusion_head import MaXFusionHead, fuse_panoptic_pixelwise
from .max_deeplab_head import MaXDeepLabHead
from .panoptic_fusion_head import Segment, fuse_instances
from .remax_mask2former_head import RelaxationMixin, ReMaXMask2FormerHead, ReMaXMaskFormerHead
from .semantic_head import ASPPSemanticHead, SimpleSemanticHead, StageSemanticHead

__all__ = [
    'ASPPSemanticHead', 'KMaXFusionHead', 'KMaXHead', 'MaXDeepLabHead', 'MaXFusionHead', 'Segment',
    'fuse_instances', 'fuse_panoptic', 'fuse_panoptic_pixelwise', 'fuse_semantic', 'SimpleSemanticHead',
    'StageSemanticHead', 'RelaxationMixin', 'ReMaXMask2FormerHead', 'ReMaXMaskFormerHead'
]
