"""Output of a mask transformer, and the shape letters that the whole package uses.

======  ===================================================================
B       images of a batch
N       mask slots (queries, cluster centers)
K       classes without void: things first, then stuff
D       channels of the pixel embedding
M       ground-truth segments of an image, padded to the largest of a batch
H, W    network input, in pixels
h, w    feature or mask resolution
======  ===================================================================
"""
from typing import NamedTuple, Optional

from torch import Tensor


class MaskPrediction(NamedTuple):
    """One output of the transformer decoder. The last one of a list is the final output.

    Attributes:
        class_logits: (B, N, K + 1), columns: things, stuff, void.
        mask_logits: (B, N, h, w), not relaxed.
        pixel_feature: (B, D, h, w), unit length over D.
        relaxed_mask_logits: (B, N, h, w), Eq. 2 of ReMaX; None if ReMask is off, as it is at test.
        sem_logits: (B, K, h', w') of the stage's own semantic head, at the stage's resolution; training only.
    """
    class_logits: Tensor
    mask_logits: Tensor
    pixel_feature: Tensor
    relaxed_mask_logits: Optional[Tensor] = None
    sem_logits: Optional[Tensor] = None

    @property
    def supervised_mask_logits(self) -> Tensor:
        """Mask logits (B, N, h, w) that the panoptic losses supervise: relaxed if ReMask was on."""
        return self.mask_logits if self.relaxed_mask_logits is None else self.relaxed_mask_logits
