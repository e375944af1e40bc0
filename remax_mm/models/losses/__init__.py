from .binary_cross_entropy import sum_binary_cross_entropy
from .instance_discrimination_loss import InstanceDiscriminationLoss, pixel_contrast
from .mask_id_loss import SigmoidMaskIDLoss, SoftmaxMaskIDLoss
from .mean_embedding_discrimination_loss import MeanEmbeddingDiscriminationLoss, mean_embedding_contrast
from .panoptic_criterion import PanopticCriterion
from .pixel_sampling import PixelSampler, mean_over_nonzero, sample_pixels
from .pq_loss import PQClassLoss, PQMaskLoss, dice_loss, soft_cross_entropy
from .semantic_loss import BinarySemanticLoss, SemanticLoss, UpsampledSemanticLoss
from .soft_target_loss import SoftTargetCrossEntropyLoss
from .softmax_sums import SoftmaxSums, softmax_sums

__all__ = [
    'InstanceDiscriminationLoss', 'pixel_contrast', 'SigmoidMaskIDLoss', 'SoftmaxMaskIDLoss',
    'sum_binary_cross_entropy', 'MeanEmbeddingDiscriminationLoss', 'mean_embedding_contrast',
    'PanopticCriterion', 'PixelSampler', 'mean_over_nonzero', 'sample_pixels', 'PQClassLoss', 'PQMaskLoss',
    'dice_loss', 'soft_cross_entropy', 'BinarySemanticLoss', 'SemanticLoss', 'UpsampledSemanticLoss',
    'SoftTargetCrossEntropyLoss', 'SoftmaxSums', 'softmax_sums'
]
