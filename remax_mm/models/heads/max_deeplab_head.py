"""The panoptic head of MaX-DeepLab: mask predictor, semantic head, criterion."""
from typing import Any, List, Optional, Sequence, Tuple

from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor

from remax_mm.structures import DualPathFeatures, MaskPrediction, StageContext
from ..layers import KMAX_NORM, MAX_ACT, ActConfig, MaskPredictor, NormConfig
from ..relaxations import build_remask
from .panoptic_head import PanopticHead


@MODELS.register_module()
class MaXDeepLabHead(PanopticHead):
    """MaX-DeepLab on :class:`DualPathAxialResNet`; there is one prediction, the final one.

    deeplab2 model/decoder/max_deeplab.py. ReMask, where there is one, sees the feature that the masks are
    predicted from.

    Args:
        num_things_classes, num_stuff_classes: things come first in every list of classes.
        in_channels: of the panoptic feature.
        slot_channels: of the class and mask embeddings.
        channels: width of the pixel head.
        embedding_channels: D.
        criterion: config of :class:`PanopticCriterion`; None for a head that only predicts.
        semantic_head: config of the auxiliary semantic head, with its ``in_channels``; None for none.
        remask: config of :class:`ReMask`, None for none.
        mask_prior: see :class:`MaskPredictor`.
        norm_cfg, act_cfg: of all parts, unless their configs state others.
        others: see :class:`PanopticHead`.
    """

    def __init__(self,
                 num_things_classes: int,
                 num_stuff_classes: int,
                 in_channels: int = 256,
                 slot_channels: int = 256,
                 channels: int = 256,
                 embedding_channels: int = 128,
                 criterion: Optional[ConfigDict] = None,
                 semantic_head: Optional[ConfigDict] = None,
                 remask: Optional[ConfigDict] = None,
                 norm_cfg: NormConfig = KMAX_NORM,
                 act_cfg: ActConfig = MAX_ACT,
                 mask_prior: Optional[float] = None,
                 **others: Any) -> None:
        super().__init__(num_things_classes, num_stuff_classes, **others)
        self.predictor = MaskPredictor(in_channels, slot_channels, self.num_classes, channels,
                                       embedding_channels, norm_cfg, act_cfg, mask_prior)
        self.remask = None
        if remask is not None:
            widths = dict(pixel_space=in_channels, embedding=embedding_channels)
            self.remask = build_remask(remask, widths, self.num_classes, norm_cfg, act_cfg)
        if semantic_head is not None:
            semantic_head = {'norm_cfg': norm_cfg, 'act_cfg': act_cfg, **semantic_head}
        self.build_training_parts(semantic_head, criterion)

    def mask_shape(self, decoded: DualPathFeatures) -> Tuple[int, int, int]:
        """N, h and w of the masks."""
        return (decoded.mask_embedding.shape[-1], *decoded.panoptic.shape[-2:])

    def predict_masks(self,
                      decoded: DualPathFeatures,
                      sem_seg: Optional[Tensor] = None) -> List[MaskPrediction]:
        """The final prediction alone, in a list."""
        prediction = self.predictor(decoded.mask_embedding, decoded.class_embedding, decoded.panoptic)
        if self.remask is not None:
            prediction = self.remask(prediction, StageContext(decoded.panoptic, sem_seg=sem_seg))
        return [prediction]

    def semantic_features(self, features: DualPathFeatures) -> Sequence[Tensor]:
        """The backbone features that the auxiliary semantic head takes."""
        return features.semantic
