"""The panoptic head of kMaX-DeepLab: pixel decoder, transformer decoder, semantic head, criterion."""
from typing import Any, List, Optional, Sequence, Tuple

from mmdet.registry import MODELS
from mmengine.config import ConfigDict
from torch import Tensor

from remax_mm.structures import MaskPrediction
from ..layers import KMAX_NORM, NormConfig
from .panoptic_head import PanopticHead


@MODELS.register_module()
class KMaXHead(PanopticHead):
    """kMaX-DeepLab; ReMaX is this head with ``remask``, and with ``reclass`` in its criterion.

    Each part gets what the head knows, unless its config states it: ``norm_cfg``, ``num_classes``, and as
    ``in_channels`` those of the backbone or of the pixel decoder.

    Args:
        num_things_classes, num_stuff_classes: things come first in every list of classes.
        in_channels: channels of the backbone features, fine to coarse.
        pixel_decoder, transformer_decoder: configs.
        criterion: config of :class:`PanopticCriterion`; None for a head that only predicts.
        semantic_head: config of the auxiliary semantic head on the backbone features, None for none.
        remask: config of :class:`ReMask`, built for each of the first ``num_relaxed`` decoder layers.
        num_relaxed: decoder layers that are relaxed in training; None for two thirds of them.
        norm_cfg: config of all norms.
        others: see :class:`PanopticHead`.
    """

    def __init__(self,
                 num_things_classes: int,
                 num_stuff_classes: int,
                 in_channels: Sequence[int],
                 pixel_decoder: ConfigDict,
                 transformer_decoder: ConfigDict,
                 criterion: Optional[ConfigDict] = None,
                 semantic_head: Optional[ConfigDict] = None,
                 remask: Optional[ConfigDict] = None,
                 num_relaxed: Optional[int] = None,
                 norm_cfg: NormConfig = KMAX_NORM,
                 **others: Any) -> None:
        super().__init__(num_things_classes, num_stuff_classes, **others)
        self.pixel_decoder = MODELS.build({'in_channels': in_channels, 'norm_cfg': norm_cfg, **pixel_decoder})
        known = dict(
            in_channels=self.pixel_decoder.out_channels,
            num_classes=self.num_classes,
            norm_cfg=norm_cfg,
            remask=remask,
            num_relaxed=num_relaxed)
        self.transformer_decoder = MODELS.build({**known, **transformer_decoder})
        if semantic_head is not None:
            semantic_head = {'in_channels': in_channels, 'norm_cfg': norm_cfg, **semantic_head}
        self.build_training_parts(semantic_head, criterion)

    def decode(self, features: Sequence[Tensor]) -> List[Tensor]:
        """Pixel features, coarse to fine, from backbone features, fine to coarse."""
        return self.pixel_decoder(features)

    def mask_shape(self, decoded: Sequence[Tensor]) -> Tuple[int, int, int]:
        """N, h and w of the final masks."""
        return (self.transformer_decoder.num_slots, *decoded[-1].shape[-2:])

    def predict_masks(self,
                      decoded: Sequence[Tensor],
                      sem_seg: Optional[Tensor] = None) -> List[MaskPrediction]:
        """One prediction per decoder layer at its own resolution, then the final one."""
        return self.transformer_decoder(decoded, sem_seg)
