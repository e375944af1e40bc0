"""Check that losses are finite before the backward pass.

The detector's ``loss`` calls this check, because a hook gets the losses only after the weights are updated.
"""
import math
from typing import Any, List, Mapping, Sequence, Union

import torch
from mmengine.logging import MessageHub
from torch import Tensor

Losses = Mapping[str, Union[Tensor, Sequence[Tensor]]]


def check_finite_losses(losses: Losses, data_samples: Sequence[Any]) -> None:
    """Raise an error if a loss term is infinite or NaN.

    It needs one synchronization with the device: the terms are checked there and one flag is read. Loss
    scaling cannot cause such a term, because the scaler multiplies the sum later.

    Args:
        losses: Tensors, or lists of tensors, by name.
        data_samples: The images of this batch, named by their ``img_path`` (or ``img_id``).

    Raises:
        FloatingPointError: a term is not finite; names the terms, the iteration and the images.
    """
    terms = {name: [value] if isinstance(value, Tensor) else list(value) for name, value in losses.items()}
    tensors = [tensor.detach() for values in terms.values() for tensor in values]
    if not tensors:
        return
    # The sum over the elements of a term is not finite if an element is not finite, or if it overflows.
    sums = torch.stack([tensor.float().sum() for tensor in tensors])
    if bool(torch.isfinite(sums).all()):
        return

    names = [name for name, values in terms.items() for _ in values]
    wrong = [f'{name} = {value}' for name, value in zip(names, sums.tolist()) if not math.isfinite(value)]
    iteration = MessageHub.get_current_instance().get_info('iter', 'unknown')
    raise FloatingPointError(
        f'Expected finite losses, but got {", ".join(wrong)} in iteration {iteration} (from 0) on the '
        f'images {image_names(data_samples)}. The weights have not been updated from this batch.')


def image_names(data_samples: Sequence[Any]) -> List[Any]:
    """Paths of the images of a batch; the image id or 'unknown' for an image without a path."""
    names = (sample.metainfo for sample in data_samples)
    return [meta.get('img_path', meta.get('img_id', 'unknown')) for meta in names]
