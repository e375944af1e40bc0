"""Finds on a CPU what would wait for a GPU."""
import traceback
from contextlib import contextmanager
from typing import Any, Iterator, List, Optional, Set

import pytest
import torch
from mmengine.model import BaseDataPreprocessor
from mmengine.structures import BaseDataElement
from torch import Tensor
from torch.multiprocessing.reductions import StorageWeakRef
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode
from torch.utils._pytree import tree_leaves

from remax_mm.models.detectors import finite_losses

READS = {
    '_local_scalar_dense', 'nonzero', 'masked_select', 'bincount', 'unique_dim', '_unique2', 'is_nonzero',
    'unique_consecutive', 'equal', 'repeat_interleave.Tensor'
}
"""ATen operations that read values on the host, or whose result has a size that depends on values."""
COPIES_TO_HOST = {'cpu', 'numpy', 'tolist'}
COPIES_FROM_HOST = {'tensor', 'as_tensor', 'new_tensor'}


def _tensors(value: Any) -> List[Tensor]:
    return [leaf for leaf in tree_leaves(value) if isinstance(leaf, Tensor)]


class Device:
    """A device that is made up: tensors that were moved to it, and what was computed from them."""

    def __init__(self) -> None:
        self._storages: Set[StorageWeakRef] = set()
        self.waits: List[str] = []

    def add(self, value: Any) -> None:
        self._storages.update(StorageWeakRef(tensor.untyped_storage()) for tensor in _tensors(value))

    def has(self, value: Any) -> bool:
        return any(StorageWeakRef(tensor.untyped_storage()) in self._storages for tensor in _tensors(value))

    @staticmethod
    def on_host(tensor: Tensor) -> Tensor:
        with torch._C.DisableTorchFunction():
            return torch.from_numpy(tensor.detach().numpy().copy())

    def note(self, what: str) -> None:
        frames = [frame for frame in traceback.extract_stack() if 'site-packages/torch' not in frame.filename]
        place = next(f for f in reversed(frames) if not f.filename.endswith('host_reads.py'))
        self.waits.append(f'{what} in {place.filename}:{place.lineno} {place.name}')


class Arrived:
    """The event of a copy in the background that is complete."""

    def query(self) -> bool:
        return True

    def synchronize(self) -> None:
        pass


class _Operations(TorchDispatchMode):

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_dispatch__(self, func: Any, types: Any, args: Any = (), kwargs: Optional[dict] = None) -> Any:
        on_device = self._device.has((args, kwargs))
        name = func.name().removeprefix('aten::')
        if on_device and (name in READS or name.split('.')[0] in READS):
            self._device.note(name)
        if on_device and name.startswith('index') and any(t.dtype == torch.bool for t in _tensors(args[1])):
            self._device.note(f'{name} with a mask')
        result = func(*args, **(kwargs or {}))
        if on_device:
            self._device.add(result)
        return result


class _Functions(TorchFunctionMode):

    def __init__(self, device: Device) -> None:
        super().__init__()
        self._device = device

    def __torch_function__(self, func: Any, types: Any, args: Any = (), kwargs: Optional[dict] = None) -> Any:
        kwargs = kwargs or {}
        name = getattr(func, '__name__', '')
        if name in COPIES_TO_HOST and self._device.has(args[0]):
            self._device.note(name)
            if name == 'cpu':
                return self._device.on_host(args[0])
        if name in ('__getitem__', '__setitem__') and self._device.has(args[0]) and any(
                isinstance(index, list)
                for index in (args[1] if isinstance(args[1], tuple) else (args[1], ))):
            self._device.note(f'{name} with a list')
        result = func(*args, **kwargs)
        # 'cpu' as a string means the host; the device of a parameter is an object.
        on_device = isinstance(kwargs.get('device'), torch.device)
        if name in COPIES_FROM_HOST and (on_device or name == 'new_tensor'):
            self._device.note(name)
        if on_device:
            self._device.add(result)
        return result


@contextmanager
def made_up_device(model: torch.nn.Module) -> Iterator[Device]:
    """Count what waits for the device that the model and each preprocessed batch are on.

    Yields:
        The device, with one entry of ``waits`` for each time that the host waits.
    """
    device = Device()
    device.add([*model.parameters(), *model.buffers()])
    cast_data = BaseDataPreprocessor.cast_data

    def cast(self: BaseDataPreprocessor, data: Any) -> Any:
        if isinstance(data, BaseDataElement):
            moved = data.clone()
            for item in moved.values():
                device.add(list(item.values()) if isinstance(item, BaseDataElement) else item)
            return moved
        if isinstance(data, Tensor):
            moved = data if device.has(data) else data.clone()
            device.add(moved)
            return moved
        return cast_data(self, data)

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(BaseDataPreprocessor, 'cast_data', cast)
        patch.setattr(finite_losses, 'copy_to_host', lambda sums: (Device.on_host(sums), Arrived()))
        with _Functions(device), _Operations(device):
            yield device
