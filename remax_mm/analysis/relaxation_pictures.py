"""Pictures of what ReMask and ReClass do in a training step."""
from pathlib import Path
from typing import Dict, List, NamedTuple, Optional, Sequence, Tuple, Union

import numpy as np
import torch
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmdet.models.detectors import BaseDetector
from mmengine.config import Config
from torch import Tensor, nn

from remax_mm.models.layers import resize_to
from remax_mm.models.losses import PanopticCriterion
from remax_mm.structures import MaskPrediction, SlotTargets
from .training_step import in_training, load_training

GROUND_TRUTH_COLOR = 'yellow'
MAX_CLASSES = 6  # in the class targets of a slot
MIN_TARGET = 0.001  # of a class that is listed


class RelaxedOutput(NamedTuple):
    """An output of the decoder with relaxed masks, as the losses get it.

    Attributes:
        prediction: with ``relaxed_mask_logits``.
        targets: with the class targets of ReClass.
        stage: index of the output, the first one is 0.
        image: (H, W, 3) uint8, RGB, the first image of the batch as the network gets it; padding is black.
        classes: names of the K classes.
    """
    prediction: MaskPrediction
    targets: SlotTargets
    stage: int
    image: np.ndarray
    classes: Sequence[str]


class SlotPicture(NamedTuple):
    """A slot of an image with the segment that it is matched with, all maps (h, w).

    Attributes:
        slot: index of the slot.
        label: class of the segment.
        segment: bool, its pixels.
        plain: mask in [0, 1] without ReMask.
        factor: what ReMask multiplies the mask logits with.
        relaxed: mask in [0, 1] with ReMask.
        class_targets: (K + 1,) with ReClass, void last.
    """
    slot: int
    label: int
    segment: np.ndarray
    plain: np.ndarray
    factor: np.ndarray
    relaxed: np.ndarray
    class_targets: np.ndarray


def record_relaxed_output(model: BaseDetector, batch: dict, classes: Sequence[str]) -> RelaxedOutput:
    """Compute the losses of a batch as in training, and keep the first output with relaxed masks.

    Args:
        model: Detector with a :class:`PanopticCriterion`. It is not trained.
        batch: of its data loader.
        classes: names of the K classes.

    Raises:
        ValueError: the model has no such criterion, or no output is relaxed.
    """
    seen: List[Tuple[MaskPrediction, SlotTargets]] = []
    handle = _find_criterion(model).loss_cls.register_forward_hook(
        lambda loss, inputs, _: seen.append(inputs))
    try:
        with in_training(model):
            data = model.data_preprocessor(batch, training=True)
            model(**data, mode='loss')
    finally:
        handle.remove()

    # The criterion starts with the final output, the first stage is next.
    for stage, (prediction, targets) in enumerate(seen[1:] + seen[:1]):
        if prediction.relaxed_mask_logits is not None:
            image = _pad(batch['inputs'][0], data['inputs'].shape[-2:])
            return RelaxedOutput(prediction, targets, stage, image, classes)
    raise ValueError('Expected a model with ReMask, but no output has relaxed masks')


def choose_slots(output: RelaxedOutput, number: int) -> List[SlotPicture]:
    """The matched slots of the first image whose masks ReMask changes most, at most one for each class.

    Args:
        output: of the model.
        number: at most this many slots.
    """
    prediction, targets = output.prediction, output.targets
    plain, relaxed = prediction.mask_logits[:1], prediction.supervised_mask_logits[:1]
    factor = torch.where(plain.abs() > 1e-6, relaxed / plain, 1.)
    plain, relaxed, factor = (
        resize_to(part, targets.owner.shape[-2:])[0] for part in (plain, relaxed, factor))
    plain, relaxed = plain.sigmoid(), relaxed.sigmoid()
    change = (relaxed - plain).abs().flatten(1).mean(-1)
    matched = (targets.area[0] > 0).nonzero()[:, 0]

    chosen: Dict[int, SlotPicture] = {}
    for slot in matched[change[matched].argsort(descending=True)].tolist():
        class_targets = targets.class_targets[0, slot]
        label = int(class_targets[:-1].argmax())  # ReClass keeps the target 1 of the labeled class
        segment = targets.owner[0] == slot
        parts = (segment, plain[slot], factor[slot], relaxed[slot], class_targets)
        chosen.setdefault(label, SlotPicture(slot, label, *(part.cpu().numpy() for part in parts)))
    return list(chosen.values())[:number]


def draw_remask(output: RelaxedOutput, slots: Sequence[SlotPicture]) -> Figure:
    """A row for each slot: image and segment, mask without ReMask, factor, mask with ReMask."""
    figure = Figure(figsize=(10, 2.6 * len(slots) + 0.5), layout='constrained')
    axes = figure.subplots(len(slots), 4, squeeze=False)
    largest = max(float(slot.factor.max()) for slot in slots)
    for row, slot in zip(axes, slots):
        row[0].imshow(output.image, extent=_extent(slot.segment))
        masks = [
            row[column].imshow(mask, cmap='gray', vmin=0, vmax=1)
            for column, mask in ((1, slot.plain), (3, slot.relaxed))
        ]
        factor = row[2].imshow(slot.factor, cmap='viridis', vmin=1, vmax=largest)
        for axis in row:
            _outline(axis, slot.segment)
        row[0].set_ylabel(f'slot {slot.slot}: {output.classes[slot.label]}')
    for axis, title in zip(
            axes[0], ('image and segment', 'mask without ReMask', 'factor of ReMask', 'mask with ReMask')):
        axis.set_title(title)
    figure.colorbar(masks[0], ax=axes[:, 1], location='bottom', shrink=0.8, label='probability')
    figure.colorbar(factor, ax=axes[:, 2], location='bottom', shrink=0.8, label='1 + semantic gate')
    figure.colorbar(masks[1], ax=axes[:, 3], location='bottom', shrink=0.8, label='probability')
    return figure


def draw_reclass(output: RelaxedOutput, slots: Sequence[SlotPicture]) -> Figure:
    """A row for each slot: image under its mask, and its class targets."""
    figure = Figure(figsize=(8, 2.6 * len(slots)), layout='constrained')
    axes = figure.subplots(len(slots), 2, squeeze=False, width_ratios=(1, 1.6))
    for (left, right), slot in zip(axes, slots):
        left.imshow(output.image, extent=_extent(slot.segment))
        left.imshow(np.zeros_like(slot.plain), cmap='gray', alpha=0.85 * (1 - slot.plain))
        _outline(left, slot.segment)
        left.set_ylabel(f'slot {slot.slot}: {output.classes[slot.label]}')
        _draw_targets(right, slot, output.classes)
    axes[0, 0].set_title('what the mask covers')
    axes[0, 1].set_title('class target: the label 1, other classes by coverage')
    return figure


def draw_relaxations(config: Config,
                     out_dir: Path,
                     checkpoint: Optional[Union[str, Path]] = None,
                     num_slots: int = 3,
                     seed: int = 0) -> List[Path]:
    """Draw ``remask.png`` and ``reclass.png`` for the first image of the training data.

    Args:
        config: Its model has ReMask.
        out_dir: Folder, created if it does not exist.
        checkpoint: File or URL. None for the weights that training starts from.
        num_slots: At most this many slots.
        seed: Random seed of the images, and of the weights without a checkpoint.

    Returns:
        The files.

    Raises:
        ValueError: the model has no ReMask, the image no segment, or ``num_slots`` is below 1.
    """
    if num_slots < 1:
        raise ValueError(f'Expected `num_slots` to be at least 1, but got {num_slots}')
    model, loader = load_training(config, checkpoint, seed)
    classes = loader.dataset.metainfo['classes']  # type: ignore[attr-defined]
    output = record_relaxed_output(model, next(iter(loader)), classes)
    slots = choose_slots(output, num_slots)
    if not slots:
        raise ValueError('Expected an image with a segment, but the first one has none; try another --seed')
    out_dir.mkdir(parents=True, exist_ok=True)
    files = [out_dir / 'remask.png', out_dir / 'reclass.png']
    for draw, file in zip((draw_remask, draw_reclass), files):
        draw(output, slots).savefig(file, dpi=100)
    return files


def _find_criterion(model: nn.Module) -> PanopticCriterion:
    for part in model.modules():
        if isinstance(part, PanopticCriterion):
            return part
    raise ValueError(f'Expected a model with a PanopticCriterion, but got {type(model).__name__} without one')


def _pad(image: Tensor, size: Tuple[int, int]) -> np.ndarray:
    """A loaded image (3, H', W'), BGR, at the upper left of a black RGB image."""
    padded = np.zeros((*size, 3), dtype=np.uint8)
    padded[:image.shape[1], :image.shape[2]] = image.cpu().numpy()[::-1].transpose(1, 2, 0)
    return padded


def _extent(segment: np.ndarray) -> Tuple[float, float, float, float]:
    """Where an image of another resolution is drawn to lie under a mask."""
    height, width = segment.shape
    return -0.5, width - 0.5, height - 0.5, -0.5


def _outline(axis: Axes, segment: np.ndarray) -> None:
    axis.contour(segment, levels=[0.5], colors=GROUND_TRUTH_COLOR, linewidths=1)
    axis.set(xticks=[], yticks=[])


def _draw_targets(axis: Axes, slot: SlotPicture, classes: Sequence[str]) -> None:
    """Horizontal bars of the class targets: the label, then the most covered classes."""
    targets = slot.class_targets[:-1]
    order = [
        index for index in np.argsort(-targets).tolist() if index == slot.label or targets[index] > MIN_TARGET
    ]
    order = order[:MAX_CLASSES]
    colors = ['tab:blue' if index == slot.label else 'tab:orange' for index in order]
    bars = axis.barh([classes[index] for index in order], targets[order], color=colors)
    axis.bar_label(bars, fmt='%.3f', padding=3)
    axis.set(xlim=(0, 1.15))
    axis.invert_yaxis()
