"""What the panoptic heads of kMaX-DeepLab and MaX-DeepLab have in common."""
from typing import Any, Dict, List, Optional, Sequence, Tuple

from mmdet.registry import MODELS
from mmdet.structures import SampleList
from mmengine.config import ConfigDict
from mmengine.model import BaseModule
from torch import Tensor

from remax_mm.structures import MaskPrediction
from ..task_modules import build_panoptic_targets


class PanopticHead(BaseModule):
    """What mmdet's ``MaskFormer`` detector requires of a ``panoptic_head``.

    A child predicts masks from backbone features: it builds its network, then calls
    :meth:`build_training_parts`, and implements :meth:`decode`, :meth:`mask_shape` and
    :meth:`predict_masks`. Relaxations, semantic head and criterion exist in training only.

    Args:
        num_things_classes, num_stuff_classes: things come first in every list of classes.
        train_cfg, test_cfg: accepted because mmdet's detector passes them; unused.
    """

    def __init__(self,
                 num_things_classes: int,
                 num_stuff_classes: int,
                 train_cfg: Optional[ConfigDict] = None,
                 test_cfg: Optional[ConfigDict] = None,
                 init_cfg: Optional[ConfigDict] = None) -> None:
        super().__init__(init_cfg)
        self.num_things_classes = num_things_classes
        self.num_stuff_classes = num_stuff_classes
        self.num_classes = num_things_classes + num_stuff_classes

    def build_training_parts(self, semantic_head: Optional[ConfigDict],
                             criterion: Optional[ConfigDict]) -> None:
        """Build the parts that exist in training only.

        A child calls this last, so that with one seed its network has the same initial weights with and
        without them.

        Args:
            semantic_head: config of the auxiliary semantic head, None for none; ``num_classes`` is K unless
                stated.
            criterion: config of :class:`PanopticCriterion`; None for a head that only predicts.
        """
        self.semantic_head = None
        if semantic_head is not None:
            self.semantic_head = MODELS.build({'num_classes': self.num_classes, **semantic_head})
        self.criterion = None if criterion is None else MODELS.build(criterion)

    def decode(self, features: Any) -> Any:
        """Features that the masks are predicted from; those of the backbone unless a child decodes them."""
        return features

    def mask_shape(self, decoded: Any) -> Tuple[int, int, int]:
        """N, h and w of the final masks."""
        raise NotImplementedError

    def predict_masks(self, decoded: Any, sem_seg: Optional[Tensor] = None) -> List[MaskPrediction]:
        """All predictions, the final one last.

        Args:
            decoded: what :meth:`decode` returns.
            sem_seg: (B, h, w) semantic ground truth at the size of the final masks, for ReMask in training.
        """
        raise NotImplementedError

    def semantic_features(self, features: Any) -> Sequence[Tensor]:
        """The backbone features that the auxiliary semantic head takes."""
        return features

    def forward(self, features: Any, batch_data_samples: Optional[SampleList] = None) -> List[MaskPrediction]:
        """Predict from backbone features.

        Args:
            features: what the backbone returns.
            batch_data_samples: accepted because mmdet's detector passes it; unused.

        Returns:
            All predictions, the final one last.
        """
        return self.predict_masks(self.decode(features))

    def loss(self, features: Any, batch_data_samples: SampleList) -> Dict[str, Tensor]:
        """Losses of a batch, already weighted.

        Raises:
            RuntimeError: the head was built or stripped for inference.
        """
        if self.criterion is None:
            raise RuntimeError(
                f'Expected a `criterion` to compute losses with, but this {type(self).__name__} has none.')
        # The ground truth is built before the masks, because some relaxations need it.
        decoded = self.decode(features)
        num_slots, height, width = self.mask_shape(decoded)
        targets = build_panoptic_targets(
            batch_data_samples, num_classes=self.num_classes, size=(height, width), num_slots=num_slots)

        predictions = self.predict_masks(decoded, targets.sem_seg)
        sem_logits = None
        if self.semantic_head is not None:
            sem_logits = self.semantic_head(self.semantic_features(features))
        return self.criterion(predictions, targets, sem_logits)

    def predict(self, features: Any, batch_data_samples: SampleList) -> Tuple[Tensor, Tensor]:
        """Final class logits (B, N, K + 1) and mask logits (B, N, h, w), at mask stride."""
        final = self(features)[-1]
        return final.class_logits, final.mask_logits

    def drop_training_parts(self) -> None:
        """Remove everything that exists in training only; what remains is the network of inference."""
        self.semantic_head = None
        self.criterion = None
        for module in list(self.modules()):
            remask = getattr(module, 'remask', None)
            if remask is not None and remask.training_only:
                module.remask = None
