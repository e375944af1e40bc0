"""Time and memory of the losses and of the matching, in this version of the package or in an older one.

This file is also run as a script that prints the costs as JSON, with another version of the package on the
path. So it uses only what 55d733f has as well.
"""
import json
import sys
import time
from functools import partial
from typing import Any, Callable, Dict, List, NamedTuple, Tuple

import torch
import torch.nn.functional as F
from mmdet.registry import MODELS
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData
from torch import Tensor

import remax_mm.models  # noqa: F401  (registers the losses)
from remax_mm.analysis.training_overhead import TensorMemory
from remax_mm.structures import MaskPrediction

try:
    from remax_mm.models.task_modules import build_panoptic_targets
except ImportError:  # its place in 55d733f
    from remax_mm.structures import build_panoptic_targets  # type: ignore[attr-defined, no-redef]

STRIDES = (32, 32, 16, 16, 8, 8, 4)
"""Of the outputs of kMaX-DeepLab."""
NUM_RELAXED = 4


class CriterionSettings(NamedTuple):
    """What the losses are measured on.

    Attributes:
        relaxed: Whether the losses are those of ReMaX, otherwise of kMaX-DeepLab.
        num_segments: Number of segments of an image.
        side: Height and width of the final masks.
        batch_size, num_slots, num_classes, embedding_channels: B, N, K and D.
    """
    relaxed: bool = False
    num_segments: int = 20
    side: int = 161
    batch_size: int = 1
    num_slots: int = 128
    num_classes: int = 133
    embedding_channels: int = 128


class PartCost(NamedTuple):
    """Seconds of CPU time, or of wall time on a GPU, and peak of the memory in bytes."""
    seconds: float
    peak_memory: int


class CriterionCost(NamedTuple):
    """Costs by part, with backward pass, and the losses of the whole criterion."""
    parts: Dict[str, PartCost]
    losses: Dict[str, float]


def measure_criterion(settings: CriterionSettings, repeats: int = 3) -> CriterionCost:
    """Time and memory of the whole criterion and of its parts.

    Each loss is measured on the final output; ``criterion`` is the whole, on all outputs. The matching and
    ReClass have no backward pass.

    Args:
        settings: Sizes.
        repeats: Number of measurements after the first one; the time is their minimum.
    """
    torch.manual_seed(0)
    device = torch.device('cuda' if torch.cuda.is_available() else 'cpu')
    criterion = MODELS.build(_config(settings.relaxed)).train().to(device)
    samples = _draw_samples(settings, device)
    size = (settings.side, settings.side)

    def build() -> Any:
        return build_panoptic_targets(samples, num_classes=settings.num_classes, size=size)

    targets, (predictions, sem_logits) = build(), _draw_predictions(settings, device)
    final = predictions[-1]
    slot_targets = criterion._assign(final, targets)
    parts: Dict[str, Callable[[], Any]] = dict(
        criterion=lambda: criterion(predictions, targets, sem_logits),
        targets=build,
        matching=lambda: criterion._assign(final, targets))
    for name in ('loss_cls', 'loss_mask_id', 'loss_dice', 'loss_insdis'):
        parts[name] = partial(getattr(criterion, name), final, slot_targets)
    if settings.relaxed:
        parts['reclass'] = partial(_relax_class_targets, criterion.reclass, final.mask_logits, slot_targets)

    leaves = [part for prediction in predictions for part in prediction if part is not None]
    costs = {name: _measure(part, [*leaves, sem_logits], repeats) for name, part in parts.items()}
    torch.manual_seed(0)
    losses = criterion(predictions, targets, sem_logits)
    return CriterionCost(costs, {name: loss.item() for name, loss in losses.items()})


def _config(relaxed: bool) -> Dict[str, Any]:
    config: Dict[str, Any] = dict(
        type='PanopticCriterion',
        assigner=dict(type='PQSimilarityAssigner'),
        loss_cls=dict(type='PQClassLoss'),
        loss_dice=dict(type='PQMaskLoss'),
        loss_mask_id=dict(type='SoftmaxMaskIDLoss'),
        loss_insdis=dict(type='InstanceDiscriminationLoss'),
        loss_sem=dict(type='SemanticLoss', num_samples=4096))
    if relaxed:
        config.update(
            loss_mask_id=dict(type='SigmoidMaskIDLoss'),
            loss_stage_sem=dict(type='SemanticLoss'),
            reclass=dict(type='ReClass'))
    return config


def _draw_samples(settings: CriterionSettings, device: torch.device) -> List[DetDataSample]:
    """Images of blocks of a grid, with a border of void, in random classes."""
    side, count = 4 * (settings.side - 1) + 1, settings.num_segments
    columns = max(int(count**0.5), 1)
    rows = -(-count // columns)
    place = torch.arange(side)
    index = (place * rows // side)[:, None] * columns + place * columns // side + 1
    index[index > count] = 0
    index[:side // 16] = 0
    samples = []
    for _ in range(settings.batch_size):
        sample = DetDataSample(metainfo=dict(img_path='drawn'))
        sample.gt_panoptic_seg = PixelData(segment_map=index[None].to(torch.uint8).to(device))
        sample.gt_segments = InstanceData(
            labels=torch.randint(settings.num_classes, (count, ), device=device),
            is_thing=torch.ones(count, dtype=torch.bool, device=device))
        samples.append(sample)
    return samples


def _draw_predictions(settings: CriterionSettings,
                      device: torch.device) -> Tuple[List[MaskPrediction], Tensor]:
    """Outputs of all strides, and logits of the auxiliary semantic head."""

    def draw(*shape: int) -> Tensor:
        return torch.randn(settings.batch_size, *shape, device=device)

    predictions = []
    for output, stride in enumerate(STRIDES):
        size = [(settings.side - 1) * 4 // stride + 1] * 2
        relaxed = settings.relaxed and output < NUM_RELAXED
        feature = F.normalize(draw(settings.embedding_channels, *size), dim=1)
        masks = draw(settings.num_slots, *size)
        predictions.append(
            MaskPrediction(
                class_logits=draw(settings.num_slots, settings.num_classes + 1).requires_grad_(),
                mask_logits=masks.requires_grad_(),
                pixel_feature=feature.requires_grad_(),
                relaxed_mask_logits=(3 * masks.detach()).requires_grad_() if relaxed else None,
                sem_logits=draw(settings.num_classes, *size).requires_grad_() if relaxed else None))
    return predictions, draw(settings.num_classes, settings.side, settings.side).requires_grad_()


def _relax_class_targets(reclass: torch.nn.Module, mask_logits: Tensor, slot_targets: Any) -> Any:
    if hasattr(slot_targets, 'masks'):  # 55d733f
        return reclass(slot_targets, mask_logits)
    return reclass(slot_targets.class_targets, mask_logits, slot_targets.sem_seg)


def _measure(part: Callable[[], Any], leaves: List[Tensor], repeats: int) -> PartCost:
    """Cost of a part and of its backward pass if it has one."""

    def step() -> None:
        for leaf in leaves:
            leaf.grad = None
        result = part()
        total = sum(result.values()) if isinstance(result, dict) else result
        if isinstance(total, Tensor) and total.requires_grad:
            total.backward()

    seconds = [_seconds(step) for _ in range(1 + repeats)][1:]
    if torch.cuda.is_available():
        before = torch.cuda.memory_allocated()
        torch.cuda.reset_peak_memory_stats()
        step()
        return PartCost(min(seconds), torch.cuda.max_memory_allocated() - before)
    for leaf in leaves:
        leaf.grad = None
    with TensorMemory() as memory:
        step()
    return PartCost(min(seconds), memory.peak)


def _seconds(step: Callable[[], None]) -> float:
    if not torch.cuda.is_available():
        start = time.process_time()
        step()
        return time.process_time() - start
    torch.cuda.synchronize()
    start = time.perf_counter()
    step()
    torch.cuda.synchronize()
    return time.perf_counter() - start


if __name__ == '__main__':
    options = json.loads(sys.argv[1])
    torch.set_num_threads(options['threads'])
    cost = measure_criterion(CriterionSettings(**options['settings']), options['repeats'])
    package = remax_mm.__file__
    print(json.dumps(dict(package=package, parts=cost.parts, losses=cost.losses)))
