"""Check that losses are finite, without waiting for a GPU.

The detector's ``loss`` calls this check, because a hook gets neither the terms of the sum nor the images.
"""
import math
from typing import Any, List, Mapping, NamedTuple, Optional, Sequence, Tuple, Union

import torch
from mmengine.logging import MessageHub
from torch import Tensor

from ..layers import not_compiled

Losses = Mapping[str, Union[Tensor, Sequence[Tensor]]]


class LossSums(NamedTuple):
    """Sums of the loss terms of a batch.

    Attributes:
        names: Names of the terms.
        sums: (T,) on the CPU, one per name.
        copied: What tells that ``sums`` has arrived from the GPU; None if it was on the CPU.
        batch: Iteration and images, for the error message.
    """
    names: List[str]
    sums: Tensor
    copied: Optional[torch.cuda.Event]
    batch: str


class FiniteLossCheck:
    """Raise an error if a loss term is infinite or NaN.

    On a CPU the losses of a batch are checked at once, before the backward pass. On a GPU they are copied in
    the background, and :meth:`finish` checks them: at the next batch, or when the model changes to eval mode.

    The check reads the sum over the elements of each term, which is not finite if an element is not finite or
    if it overflows. Loss scaling cannot cause that, because the scaler multiplies the sum later.
    """

    def __init__(self) -> None:
        self._pending: Optional[LossSums] = None

    def __reduce__(self) -> Tuple[type, Tuple[()]]:
        return type(self), ()  # copies of a model do not check the losses of the original

    @not_compiled
    def add(self, losses: Losses, data_samples: Sequence[Any]) -> None:
        """Check the losses of a batch, or start to copy them. Those of the batch before must be finished.

        Args:
            losses: Tensors, or lists of tensors, by name.
            data_samples: The images of this batch, named by their ``img_path`` (or ``img_id``).

        Raises:
            FloatingPointError: A term is not finite; names the terms, the iteration and the images.
        """
        terms = [(name, tensor.detach()) for name, values in losses.items()
                 for tensor in ([values] if isinstance(values, Tensor) else values)]
        if not terms:
            return
        iteration = MessageHub.get_current_instance().get_info('iter', 'unknown')
        batch = f'iteration {iteration} (from 0) on the images {image_names(data_samples)}'
        sums, copied = copy_to_host(torch.stack([tensor.float().sum() for _, tensor in terms]))
        self._pending = LossSums([name for name, _ in terms], sums, copied, batch)
        if copied is None:
            self.finish()

    @not_compiled
    def finish(self) -> None:
        """Check what is not checked yet.

        Raises:
            FloatingPointError: A term is not finite.
        """
        if self._pending is None:
            return
        names, sums, copied, batch = self._pending
        self._pending = None
        if copied is not None:
            copied.synchronize()
        wrong = [f'{name} = {value}' for name, value in zip(names, sums.tolist()) if not math.isfinite(value)]
        if wrong:
            updated = 'have not been updated' if copied is None else 'have already been updated'
            raise FloatingPointError(f'Expected finite losses, but got {", ".join(wrong)} in {batch}. The '
                                     f'weights {updated} from this batch.')


def copy_to_host(sums: Tensor) -> Tuple[Tensor, Optional[torch.cuda.Event]]:
    """Start a copy from a GPU, and return an event that comes after it; None for a tensor on the CPU."""
    if not sums.is_cuda:
        return sums, None
    on_host = sums.to('cpu', non_blocking=True)
    copied = torch.cuda.Event()
    copied.record()
    return on_host, copied


def image_names(data_samples: Sequence[Any]) -> List[Any]:
    """Paths of the images of a batch; the image id or 'unknown' for an image without a path."""
    names = (sample.metainfo for sample in data_samples)
    return [meta.get('img_path', meta.get('img_id', 'unknown')) for meta in names]
