"""The panoptic head of kMaX-DeepLab: pixel decoder, transformer decoder, semantic head, criterion."""
from typing import Dict, List, Optional, Sequence, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor

from remax_mm.structures import MaskPrediction, PanopticTargets
from ..task_modules import build_panoptic_targets


@MODELS.register_module()
class KMaXHead(BaseModule):
    """What mmdet's ``MaskFormer`` detector asks of a ``panoptic_head``.

    ReMaX is this head with ``remask`` in its transformer decoder and ``reclass`` in its criterion; both, like
    the semantic head and the criterion itself, exist in training only.

    Args:
        num_things_classes, num_stuff_classes: things come first in every list of classes.
        pixel_decoder, transformer_decoder: configs; ``num_classes`` reaches the decoder from here.
        criterion: config of :class:`PanopticCriterion`; None for a head that only predicts.
        semantic_head: config of the auxiliary semantic head on the backbone features, None for none.
        train_cfg, test_cfg: taken because mmdet's detector passes them; unused.
    """

    def __init__(self,
                 num_things_classes: int,
                 num_stuff_classes: int,
                 pixel_decoder: ConfigDict,
                 transformer_decoder: ConfigDict,
                 criterion: Optional[ConfigDict] = None,
                 semantic_head: Optional[ConfigDict] = None,
                 train_cfg: Optional[ConfigDict] = None,
                 test_cfg: Optional[ConfigDict] = None,
                 init_cfg: Optional[ConfigDict] = None) -> None:
        super().__init__(init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes

        self.pixel_decoder = MODELS.build(pixel_decoder)
        self.transformer_decoder = MODELS.build(dict(num_classes=self.num_classes, **transformer_decoder))
        self.num_slots = self.transformer_decoder.cluster_centers.shape[1]
        self.semantic_head = None if semantic_head is None else MODELS.build(semantic_head)
        self.criterion = None if criterion is None else MODELS.build(criterion)

    def forward(self,
                features: Sequence[Tensor],
                batch_data_samples: Optional[SampleList] = None) -> List[MaskPrediction]:
        """Predict from backbone features.

        Args:
            features: fine to coarse, as the backbone gives them.
            batch_data_samples: taken because mmdet's detector passes it; unused.

        Returns:
            One prediction per decoder layer at its own resolution, then the final one.
        """
        return self.transformer_decoder(self.pixel_decoder(features))

    def loss(self, features: Sequence[Tensor], batch_data_samples: SampleList) -> Dict[str, Tensor]:
        """Losses of a batch, already weighted.

        Raises:
            RuntimeError: the head was built or stripped for inference.
        """
        if self.criterion is None:
            raise RuntimeError('Expected a `criterion` to compute losses with, but this KMaXHead has none.')
        # The decoder sees the ground truth only where a relaxation asks for it.
        pixel_features = self.pixel_decoder(features)
        targets = self._build_targets(pixel_features[-1].shape[-2:], batch_data_samples)
        predictions = self.transformer_decoder(pixel_features, targets.sem_seg)
        sem_logits = None if self.semantic_head is None else self.semantic_head(features)
        return self.criterion(predictions, targets, sem_logits)

    def predict(self, features: Sequence[Tensor], batch_data_samples: SampleList) -> Tuple[Tensor, Tensor]:
        """Final class logits (B, N, K + 1) and mask logits (B, N, h, w), at mask stride."""
        final = self(features)[-1]
        return final.class_logits, final.mask_logits

    def drop_training_parts(self) -> None:
        """Remove all that exists in training only, leaving a plain kMaX-DeepLab head for inference."""
        self.semantic_head = None
        self.criterion = None
        for layer in self.transformer_decoder.layers:
            layer.drop_training_parts()

    def _build_targets(self, size: torch.Size, batch_data_samples: SampleList) -> PanopticTargets:
        return build_panoptic_targets(
            batch_data_samples, num_classes=self.num_classes, size=tuple(size), num_slots=self.num_slots)
