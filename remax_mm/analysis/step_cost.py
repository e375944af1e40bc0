"""Time, memory and losses of whole training steps, in this version of the package or in an older one.

This file is also run as a script that prints the costs as JSON, with another version of the package on the
path. So it uses only what 55d733f has as well.
"""
import copy
import json
import sys
import time
from contextlib import ExitStack
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

import torch
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.config import Config
from mmengine.optim import build_optim_wrapper
from mmengine.registry import init_default_scope
from mmengine.structures import InstanceData, PixelData
from torch import nn
from torch.nn.modules.module import register_module_forward_hook, register_module_forward_pre_hook

import remax_mm
from remax_mm.analysis.training_overhead import TensorMemory, peak_memory


class StepSettings(NamedTuple):
    """What the steps are measured on.

    Attributes:
        config: Config file, relative to the folder of the version.
        options: Changes of the config, by dotted keys.
        batch_size: Number of images.
        num_segments: Number of segments of an image.
        seed: Of weights, images and segments.
        side: Height and width of the images; None for the size that the data preprocessor pads to.
    """
    config: str
    options: Dict[str, Any] = {}
    batch_size: int = 1
    num_segments: int = 20
    seed: int = 0
    side: Optional[int] = None


class StepsCost(NamedTuple):
    """Costs of training steps.

    Attributes:
        seconds: CPU time of each step, or wall time on a GPU.
        peak_memory: bytes that forward and backward pass add, with the gradients.
        kept_memory: bytes that each module keeps for the backward pass, by its name.
        losses: the losses of each step by name.
    """
    seconds: List[float]
    peak_memory: int
    kept_memory: Dict[str, int]
    losses: List[Dict[str, float]]


class KeptMemory(TensorMemory):
    """Bytes of the live tensors by the module that created them.

    Args:
        model: names the modules.
        depth: number of parts of a name, such as 2 for ``panoptic_head.pixel_decoder``.
    """

    def __init__(self, model: nn.Module, depth: int = 2) -> None:
        super().__init__()
        self._names = {
            module: '.'.join(name.split('.')[:depth])
            for name, module in model.named_modules() if name
        }
        self._running = ['model']
        self._created_by: Dict[int, str] = {}
        self._hooks = ExitStack()

    def __enter__(self) -> 'KeptMemory':
        for register, hook in ((register_module_forward_pre_hook, self._start), (register_module_forward_hook,
                                                                                 self._end)):
            self._hooks.callback(register(hook).remove)
        super().__enter__()
        return self

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self._hooks.close()

    def by_module(self) -> Dict[str, int]:
        """Bytes that are alive now."""
        kept: Dict[str, int] = {}
        for key, nbytes in self._known.items():
            name = self._created_by[key]
            kept[name] = kept.get(name, 0) + nbytes
        return kept

    def _start(self, module: nn.Module, inputs: Any) -> None:
        self._running.append(self._names.get(module, self._running[-1]))

    def _end(self, module: nn.Module, inputs: Any, output: Any) -> None:
        self._running.pop()

    def _track(self, storage: torch.UntypedStorage) -> None:
        count = len(self._known)
        super()._track(storage)
        if len(self._known) > count:  # the older version has other keys than this one
            self._created_by[next(reversed(self._known))] = self._running[-1]


def measure_steps(settings: StepSettings, num_steps: int) -> StepsCost:
    """Train on drawn images, from initial weights that depend on the seed alone.

    Args:
        settings: Sizes.
        num_steps: Number of optimizer steps that are timed.
    """
    config = Config.fromfile(settings.config)
    config.merge_from_dict({'model.backbone.init_cfg': None, **settings.options})
    config.model.data_preprocessor.pop('batch_augments', None)  # of mmdet: pads to a fixed size
    init_default_scope('mmdet')
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    torch.manual_seed(settings.seed)
    model = MODELS.build(config.model)
    _draw_weights(model, settings.seed)
    model = model.to(device).train()
    optim_wrapper = build_optim_wrapper(model, config.optim_wrapper)
    batches = [_draw_batch(config, settings, number) for number in range(num_steps)]

    # Memory, then the time, from the same initial state
    def losses_of(number: int) -> Dict[str, torch.Tensor]:
        torch.manual_seed(settings.seed + number)
        data = model.data_preprocessor(copy.deepcopy(batches[number]), training=True)
        return model(**data, mode='loss')

    state = copy.deepcopy(model.state_dict())
    memory = peak_memory(lambda: sum(losses_of(0).values(), torch.tensor(0.)).backward())
    with KeptMemory(model) as kept:
        parts = losses_of(0)
        kept_memory = kept.by_module()
    del parts  # and the graph, before the next one is built
    model.zero_grad()
    model.load_state_dict(state)

    seconds, losses = [], []
    for number in range(num_steps):
        start = _now()
        parts = losses_of(number)
        optim_wrapper.update_params(sum(parts.values()))
        seconds.append(_now() - start)
        losses.append({name: float(loss) for name, loss in parts.items()})
    return StepsCost(seconds, memory, kept_memory, losses)


def _draw_weights(model: torch.nn.Module, seed: int) -> None:
    """Weights by name, so that they do not depend on the order in which modules are built."""
    for name, parameter in sorted(model.named_parameters()):
        if parameter.ndim > 1:
            generator = torch.Generator().manual_seed(seed + sum(name.encode()))
            scale = parameter[0].numel()**-0.5
            parameter.data.copy_(scale * torch.randn(parameter.shape, generator=generator))


def _draw_batch(config: Config, settings: StepSettings, number: int) -> Dict[str, Any]:
    head, side = config.model.panoptic_head, settings.side or max(config.model.data_preprocessor.pad_size)
    return draw_batch(settings.batch_size, (side, side), settings.num_segments,
                      (head.num_things_classes, head.num_stuff_classes), settings.seed + number)


def draw_batch(batch_size: int, size: Tuple[int, int], num_segments: int, num_classes: Tuple[int, int],
               seed: int) -> Dict[str, Any]:
    """Noisy images and, in a grid, segments of random classes, as a data loader yields them.

    Args:
        batch_size: Number of images.
        size: Their height and width.
        num_segments: Number of segments of an image.
        num_classes: Numbers of classes of things and of stuff.
        seed: Random seed.
    """
    generator = torch.Generator().manual_seed(seed)
    columns = max(int(num_segments**0.5), 1)
    rows = -(-num_segments // columns)
    height, width = size
    index = (torch.arange(height) * rows // height)[:, None] * columns
    index = index + torch.arange(width) * columns // width + 1
    index[index > num_segments] = 0
    samples, images = [], []
    for _ in range(batch_size):
        images.append(torch.randint(256, (3, *size), generator=generator, dtype=torch.uint8))
        shapes = dict.fromkeys(('img_shape', 'ori_shape', 'pad_shape', 'batch_input_shape'), tuple(size))
        sample = DetDataSample(metainfo=dict(img_path='drawn', **shapes))
        labels = torch.randint(sum(num_classes), (num_segments, ), generator=generator)
        sample.gt_panoptic_seg = PixelData(segment_map=index[None].to(torch.uint8))
        sample.gt_segments = InstanceData(labels=labels, is_thing=labels < num_classes[0])
        samples.append(sample)
    return dict(inputs=images, data_samples=samples)


def _now() -> float:
    if not torch.cuda.is_available():
        return time.process_time()
    torch.cuda.synchronize()
    return time.perf_counter()


def main(arguments: Sequence[str]) -> None:
    options = json.loads(arguments[0])
    torch.set_num_threads(options['threads'])
    cost = measure_steps(StepSettings(**options['settings']), options['num_steps'])
    print(json.dumps(dict(package=remax_mm.__file__, **cost._asdict())))


if __name__ == '__main__':
    main(sys.argv[1:])
