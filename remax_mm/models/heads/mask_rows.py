"""Mask logits at the size of the image, a strip of rows at a time.

N masks at full size are the largest tensor of inference. Fusion needs all slots of a pixel, but no other
pixel, so it works on strips of rows. Each class here gives the rows of a tensor (N, H, W) that is never
computed as a whole.
"""
import math
from typing import Iterator, Optional, Sequence, Tuple, Union

import torch
import torch.nn.functional as F
from torch import Tensor

from ..layers import resize_to

ROW_STEP = 16
"""Strips start at multiples of this. A softmax on a CPU handles up to 16 pixels at once, and the remaining
ones with other instructions. With these strips, the remaining pixels are the same as for the whole map."""
STRIP_ELEMENTS = dict(cpu=3 * 2**18, cuda=2**24)
"""Approximate number of elements of a strip: it fits the cache of a CPU, and keeps a GPU busy."""
RESIZED_ELEMENTS = dict(cpu=2**19, cuda=2**24)
"""Approximate number of elements that are resized at once."""
LARGEST_BY_OTHER_KERNEL = 128
"""Up to this sum of height and width, ``F.interpolate`` rounds in another way on a CPU."""


class MaskRows:
    """The rows of a tensor (N, H, W).

    Args:
        tensor: (N, H, W).
    """

    def __init__(self, tensor: Tensor) -> None:
        self._tensor = tensor
        self.shape: Tuple[int, int, int] = (tensor.shape[0], tensor.shape[1], tensor.shape[2])
        self.device = tensor.device

    def rows(self, start: int, stop: int) -> Tensor:
        """(N, stop - start, W) float32."""
        return self._tensor[:, start:stop].float()

    def largest(self, start: int, stop: int) -> Tensor:
        """The maximum over all slots, (stop - start, W) float32."""
        return self.rows(start, stop).amax(0)

    def whole(self) -> Tensor:
        """(N, H, W) float32."""
        whole = torch.empty(self.shape, device=self.device)
        for strip, values in self:
            whole[:, strip] = values
        return whole

    def of_slots(self, slots: Tensor) -> 'MaskRows':
        """The rows of some slots, given by their indices (n,)."""
        return SelectedRows(self, slots)

    def strips(self) -> Iterator[slice]:
        """All rows in strips of a size that suits the device."""
        num_slots, height, width = self.shape
        step = STRIP_ELEMENTS[self._device_kind] // max(num_slots * width, 1) // ROW_STEP
        step = max(step, 1) * ROW_STEP
        for start in range(0, height, step):
            yield slice(start, min(start + step, height))

    @property
    def _device_kind(self) -> str:
        return 'cpu' if self.device.type == 'cpu' else 'cuda'

    def __iter__(self) -> Iterator[Tuple[slice, Tensor]]:
        """Each strip, and its values (N, rows, W), which are valid until the next strip."""
        for strip in self.strips():
            yield strip, self.rows(strip.start, strip.stop)


class DerivedRows(MaskRows):
    """Rows that are computed from the rows of a source.

    Args:
        source: rows (N, h, w).
        size: (height, width) of the result.
    """

    def __init__(self, source: MaskRows, size: Sequence[int]) -> None:
        self.source = source
        self.shape = (source.shape[0], int(size[0]), int(size[1]))
        self.device = source.device


class SelectedRows(DerivedRows):
    """Some slots of a source, given by their indices (n,)."""

    def __init__(self, source: MaskRows, slots: Tensor) -> None:
        super().__init__(source, source.shape[1:])
        self.shape = (len(slots), *self.shape[1:])
        self.slots = slots

    def rows(self, start: int, stop: int) -> Tensor:
        return self.source.rows(start, stop).index_select(0, self.slots)


class CroppedRows(DerivedRows):
    """The top left part of a source."""

    def of_slots(self, slots: Tensor) -> MaskRows:
        return CroppedRows(self.source.of_slots(slots), self.shape[1:])

    def rows(self, start: int, stop: int) -> Tensor:
        return self.source.rows(start, stop)[..., :self.shape[2]]

    def largest(self, start: int, stop: int) -> Tensor:
        return self.source.largest(start, stop)[:, :self.shape[2]]


class FlippedRows(DerivedRows):
    """A source, flipped.

    Args:
        axes: -2 (vertical), -1 (horizontal) or both.
    """

    def __init__(self, source: MaskRows, axes: Sequence[int]) -> None:
        super().__init__(source, source.shape[1:])
        self.axes = tuple(axes)

    def rows(self, start: int, stop: int) -> Tensor:
        if -2 in self.axes:
            start, stop = self.shape[1] - stop, self.shape[1] - start
        return self.source.rows(start, stop).flip(self.axes)


class SoftmaxRows(DerivedRows):
    """The softmax of a source over its slots."""

    def __init__(self, source: MaskRows) -> None:
        super().__init__(source, source.shape[1:])

    def rows(self, start: int, stop: int) -> Tensor:
        return self.source.rows(start, stop).softmax(dim=0)


class ResizedRows(DerivedRows):
    """A source after :func:`resize_to`, equal to it bit by bit on a CPU.

    First the columns are interpolated, then the rows, with the coordinates and the order of operations of
    ``F.interpolate(mode='bilinear', align_corners=True)``.
    """

    def __init__(self, source: MaskRows, size: Sequence[int]) -> None:
        super().__init__(source, size)
        # As in aten/src/ATen/native/UpSample.h: float32 throughout
        last = source.shape[1] - 1
        position = torch.arange(self.shape[1], dtype=torch.float32) * (last / max(self.shape[1] - 1, 1))
        self.upper = position.long().clamp(max=last)
        self.lower = (self.upper + 1).clamp(max=last)
        self.lower_weight = (position - self.upper).clamp(0, 1)[:, None]  # (H, 1)
        # Number of rows between two rows of the source if it is the same everywhere, else 1
        step = max((self.shape[1] - 1) // max(last, 1), 1)
        is_regular = torch.equal(self.upper, torch.arange(self.shape[1]) // step)
        self.rows_per_step = step if is_regular else 1

    def of_slots(self, slots: Tensor) -> MaskRows:
        return ResizedRows(self.source.of_slots(slots), self.shape[1:])

    def rows(self, start: int, stop: int) -> Tensor:
        return self._fill(start, torch.empty(self.shape[0], stop - start, self.shape[2], device=self.device))

    def __iter__(self) -> Iterator[Tuple[slice, Tensor]]:
        memory: Optional[Tensor] = None  # shared by all strips, of which the first is the largest
        for strip in self.strips():
            size = (self.shape[0], strip.stop - strip.start, self.shape[2])
            if memory is None:
                memory = torch.empty(math.prod(size), device=self.device)
            yield strip, self._fill(strip.start, memory[:math.prod(size)].view(size))

    def _fill(self, start: int, resized: Tensor) -> Tensor:
        """Set the values (N, rows, W) of the rows from ``start`` on."""
        stop = start + resized.shape[1]
        source, step = self._source_rows(start, stop), self._slots_at_once(stop - start)
        for values, result in zip(source.split(step), resized.split(step)):
            self._resize(values, start, stop, result)
        return resized

    def largest(self, start: int, stop: int) -> Tensor:
        source, step = self._source_rows(start, stop), self._slots_at_once(stop - start)
        resized = source.new_empty(min(step, len(source)), stop - start, self.shape[2])
        largest = source.new_full(resized.shape[1:], -math.inf)
        for values in source.split(step):
            group = self._resize(values, start, stop, resized[:len(values)])
            torch.maximum(largest, group.amax(0), out=largest)
        return largest

    def _source_rows(self, start: int, stop: int) -> Tensor:
        """The rows of the source from which the given rows are interpolated."""
        return self.source.rows(int(self.upper[start]), int(self.lower[stop - 1]) + 1)

    def _slots_at_once(self, num_rows: int) -> int:
        return max(RESIZED_ELEMENTS[self._device_kind] // max(num_rows * self.shape[2], 1), 1)

    def _resize(self, values: Tensor, start: int, stop: int, result: Tensor) -> Tensor:
        """Resize some slots.

        Args:
            values: (n, rows, w) of :meth:`_source_rows`.
            result: (n, stop - start, W), is overwritten and returned.
        """
        if values.shape[2] != self.shape[2]:
            values = F.interpolate(values, self.shape[2], mode='linear', align_corners=True)
        weight = self.lower_weight[start:stop].to(self.device)
        num_rows, step = stop - start, self.rows_per_step
        parts = result
        if step > 1 and start % step == 0 and num_rows % step == 0:
            # Each pair of rows is used for the same number of results, without copies of it.
            parts = result.view(len(values), num_rows // step, step, self.shape[2])
            upper, lower, weight = values[:, :-1, None], values[:, 1:, None], weight.view(-1, step, 1)
        else:
            upper, lower = (
                values.index_select(1, (index[start:stop] - self.upper[start]).to(self.device))
                for index in (self.upper, self.lower))
        # A fused multiply-add of the upper row rounds as the compiled kernel does.
        torch.mul(lower, weight, out=parts).addcmul_(upper, 1 - weight)
        return result


def resized_rows(source: MaskRows, size: Sequence[int]) -> MaskRows:
    """The rows of a source after :func:`resize_to`."""
    if source.shape[1:] == tuple(size):
        return source
    if sum(size) <= LARGEST_BY_OTHER_KERNEL:
        return MaskRows(resize_to(source.whole()[None], size)[0])
    return ResizedRows(source, size)


def restored_rows(mask_logits: Tensor, input_size: Sequence[int], image_size: Sequence[int],
                  output_size: Optional[Sequence[int]]) -> MaskRows:
    """Resize the mask logits of one image from mask stride to the size of the image.

    Args:
        mask_logits: (N, h, w).
        input_size: of the padded network input.
        image_size: of the image inside it, at the top left; the rest is padding.
        output_size: size of the result, None for ``image_size``.

    Returns:
        The rows of (N, H, W).
    """
    source = resized_rows(MaskRows(mask_logits), input_size)
    if source.shape[1:] != tuple(image_size):
        source = CroppedRows(source, image_size)
    return source if output_size is None else resized_rows(source, output_size)


def as_rows(masks: Union[Tensor, MaskRows]) -> MaskRows:
    """Accept a tensor (N, H, W) and its rows alike."""
    return masks if isinstance(masks, MaskRows) else MaskRows(masks)
