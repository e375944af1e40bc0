"""The panoptic head of MaX-DeepLab: mask predictor, semantic head, criterion."""
from typing import Dict, List, Optional, Tuple

from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor

from remax_mm.structures import DualPathFeatures, MaskPrediction, StageContext
from ..layers import KMAX_NORM, MAX_ACT, ActConfig, MaskPredictor, NormConfig
from ..task_modules import build_panoptic_targets


@MODELS.register_module()
class MaXDeepLabHead(BaseModule):
    """What mmdet's ``MaskFormer`` detector asks of a ``panoptic_head``, with :class:`DualPathAxialResNet`.

    There is one output, the final one (deeplab2 model/decoder/max_deeplab.py). The relaxations of ReMaX are
    ``remask`` here, on the pixel feature that masks are made on, and ``reclass`` in the criterion; both, like
    the semantic head and the criterion itself, exist in training only.

    Args:
        num_things_classes, num_stuff_classes: things come first in every list of classes.
        in_channels: of the panoptic feature.
        slot_channels: of the class and mask embeddings.
        channels: width of the pixel head.
        embedding_channels: D.
        criterion: config of :class:`PanopticCriterion`; None for a head that only predicts.
        semantic_head: config of the auxiliary semantic head, None for none.
        remask: config of :class:`ReMask`, None for none.
        train_cfg, test_cfg: taken because mmdet's detector passes them; unused.
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
                 train_cfg: Optional[ConfigDict] = None,
                 test_cfg: Optional[ConfigDict] = None,
                 init_cfg: Optional[ConfigDict] = None) -> None:
        super().__init__(init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes

        self.predictor = MaskPredictor(in_channels, slot_channels, self.num_classes, channels,
                                       embedding_channels, norm_cfg, act_cfg)
        self.remask = None if remask is None else MODELS.build(remask)
        self.semantic_head = None if semantic_head is None else MODELS.build(semantic_head)
        self.criterion = None if criterion is None else MODELS.build(criterion)

    def forward(self,
                features: DualPathFeatures,
                batch_data_samples: Optional[SampleList] = None,
                sem_seg: Optional[Tensor] = None) -> List[MaskPrediction]:
        """Predict from the features of the backbone.

        Args:
            batch_data_samples: taken because mmdet's detector passes it; unused.
            sem_seg: (B, h', w') semantic ground truth, shown to ReMask in training.

        Returns:
            The final prediction alone, in a list as of :class:`KMaXHead`.
        """
        prediction = self.predictor(features.mask_embedding, features.class_embedding, features.panoptic)
        if self.remask is not None:
            prediction = self.remask(prediction, StageContext(features.panoptic, sem_seg=sem_seg))
        return [prediction]

    def loss(self, features: DualPathFeatures, batch_data_samples: SampleList) -> Dict[str, Tensor]:
        """Losses of a batch, already weighted.

        Raises:
            RuntimeError: the head was built or stripped for inference.
        """
        if self.criterion is None:
            raise RuntimeError(
                'Expected a `criterion` to compute losses with, but this MaXDeepLabHead has none.')
        targets = build_panoptic_targets(
            batch_data_samples,
            num_classes=self.num_classes,
            size=tuple(features.panoptic.shape[-2:]),
            num_slots=features.mask_embedding.shape[-1])
        predictions = self(features, sem_seg=targets.sem_seg)
        sem_logits = None if self.semantic_head is None else self.semantic_head(features.semantic)
        return self.criterion(predictions, targets, sem_logits)

    def predict(self, features: DualPathFeatures, batch_data_samples: SampleList) -> Tuple[Tensor, Tensor]:
        """Class logits (B, N, K + 1) and mask logits (B, N, h, w), at mask stride."""
        final = self(features)[-1]
        return final.class_logits, final.mask_logits

    def drop_training_parts(self) -> None:
        """Remove all that exists in training only, leaving a plain MaX-DeepLab head for inference."""
        self.semantic_head = None
        self.criterion = None
        if self.remask is not None and self.remask.training_only:
            self.remask = None
