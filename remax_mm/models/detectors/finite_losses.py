"""Stop at the door: no backward pass from a loss that is not finite.

Called inside the detector's ``loss``, because a hook sees the losses only after the update of the weights.
"""
import math
from typing import Any, List, Mapping, Sequence, Union

import torch
from mmengine.logging import MessageHub
from torch import Tensor

Losses = Mapping[str, Union[Tensor, Sequence[Tensor]]]


def check_finite_losses(losses: Losses, data_samples: Sequence[Any]) -> None:
    """Raise one clear error where a loss term is infinite or NaN; the terms are left as they are.

    Costs one synchronization with the device: the terms are judged there and only one flag is read.
    A loss scaler does not excuse such a term, it multiplies the sum only afterwards.

    Args:
        losses: Tensors, or lists of tensors, by name.
        data_samples: The images of this batch, named by their ``img_path`` (or ``img_id``).

    Raises:
        FloatingPointError: with the terms, the iteration and the images.
    """
    terms = {name: [value] if isinstance(value, Tensor) else list(value) for name, value in losses.items()}
    tensors = [tensor.detach() for values in terms.values() for tensor in values]
    if not tensors:
        return
    # The sum over the elements of a term is not finite if one of them is not, or if it overflows.
    sums = torch.stack([tensor.float().sum() for tensor in tensors])
    if bool(torch.isfinite(sums).all()):
        return

    names = [name for name, values in terms.items() for _ in values]
    wrong = [f'{name} = {value}' for name, value in zip(names, sums.tolist()) if not math.isfinite(value)]
    raise FloatingPointError(
        f'Expected finite losses, but got {", ".join(wrong)} in iteration {_iteration()} (from 0) on the '
        f'images {image_names(data_samples)}. The weights have not been updated from this batch.')


def _iteration() -> Union[int, str]:
    iteration = MessageHub.get_current_instance().get_info('iter')
    return 'unknown' if iteration is None else iteration


def image_names(data_samples: Sequence[Any]) -> List[Any]:
    """Paths of the images of a batch, or what else they are known by."""
    names = (sample.metainfo for sample in data_samples)
    return [meta.get('img_path', meta.get('img_id', 'unknown')) for meta in names]
