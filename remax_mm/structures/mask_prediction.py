"""What a mask transformer predicts, and the shape letters used in the whole package.

======  ==================================================================
B       images of a batch
N       mask slots (queries, cluster centers)
K       classes without void: things first, then stuff
D       width of the pixel embedding
M       ground-truth segments of an image, padded to the batch's largest
H, W    network input, in pixels
h, w    feature or mask resolution
======  ==================================================================
"""
from typing import NamedTuple, Optional

from torch import Tensor


class MaskPrediction(NamedTuple):
    """One output of the transformer decoder; of a list of them the last is the final one.

    Attributes:
        class_logits: (B, N, K + 1), columns things, stuff, void.
        mask_logits: (B, N, h, w), as predicted, never relaxed.
        pixel_feature: (B, D, h, w), unit length over D.
        relaxed_mask_logits: (B, N, h, w), Eq. 2 of ReMaX; None where ReMask is off, as it is at test.
        sem_logits: (B, K, h', w') of the stage's own semantic head, at the stage's resolution; training only.
    """
    class_logits: Tensor
    mask_logits: Tensor
    pixel_feature: Tensor
    relaxed_mask_logits: Optional[Tensor] = None
    sem_logits: Optional[Tensor] = None

    @property
    def supervised_mask_logits(self) -> Tensor:
        """The mask logits that the panoptic losses see: (B, N, h, w), relaxed where ReMask was on."""
        return self.mask_logits if self.relaxed_mask_logits is None else self.relaxed_mask_logits
