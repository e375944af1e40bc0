"""A detector that segments by color: each mask slot has a color, so flips and scales do not matter.

The order of its slots is random in every call, because the order may differ between two views of an image.
"""
from typing import Any, List, NamedTuple, Sequence, Tuple

import cv2
import numpy as np
import torch
from mmdet.registry import MODELS
from mmengine.model import BaseModule
from torch import Tensor

NUM_THINGS, NUM_STUFF = 2, 2
NUM_CLASSES = NUM_THINGS + NUM_STUFF
MEAN = 128.
"""Mean of the data preprocessor, a gray value that uint8 images represent exactly."""


class Color(NamedTuple):
    rgb: Tuple[int, int, int]
    label: int


SKY = Color((0, 0, 255), 2)
GRASS = Color((0, 255, 0), 3)
CAT = Color((255, 0, 0), 0)
CAT_2 = Color((255, 255, 0), 0)
CAT_3 = Color((255, 0, 255), 0)
DOG = Color((0, 255, 255), 1)
VOID = Color((128, 128, 128), NUM_CLASSES)  # also the color of the padding
COLORS = (SKY, GRASS, CAT, CAT_2, CAT_3, DOG, VOID)


@MODELS.register_module(force=True)
class ImageItself(BaseModule):
    """A backbone whose feature is the image, every ``stride``-th pixel."""

    def __init__(self, stride: int = 1) -> None:
        super().__init__()
        self.stride = stride

    def forward(self, images: Tensor) -> Tuple[Tensor]:
        return (images[..., ::self.stride, ::self.stride], )


@MODELS.register_module(force=True)
class ColorHead(BaseModule):
    """Mask logits are the negative squared distances to the colors of the slots."""

    def __init__(self,
                 num_things_classes: int,
                 num_stuff_classes: int,
                 train_cfg: Any = None,
                 test_cfg: Any = None) -> None:
        super().__init__()
        self.num_things_classes, self.num_stuff_classes = num_things_classes, num_stuff_classes
        self.num_classes = NUM_CLASSES
        self.register_buffer('colors', torch.tensor([color.rgb for color in COLORS]) / MEAN - 1)
        self.register_buffer('labels', torch.tensor([color.label for color in COLORS]))
        self.scale = torch.nn.Parameter(torch.tensor(10.))

    def predict(self, features: Sequence[Tensor], batch_data_samples: Any) -> Tuple[Tensor, Tensor]:
        order = torch.randperm(len(COLORS))
        difference = features[0][:, None] - self.colors[order, :, None, None]  # (B, N, 3, h, w)
        classes = torch.nn.functional.one_hot(self.labels[order], NUM_CLASSES + 1)
        return (self.scale * classes).expand(len(difference), -1,
                                             -1), -self.scale * difference.square().sum(2)


def color_detector(pad_size: Any = 65, stride: int = 1, **test_cfg: Any) -> dict:
    """Config of a ``MaskTransformer`` that segments by color; needs the default scope ``mmdet``."""
    return dict(
        type='MaskTransformer',
        data_preprocessor=dict(
            type='PanopticDataPreprocessor', pad_size=pad_size, mean=[MEAN] * 3, std=[MEAN] * 3),
        backbone=dict(type='ImageItself', stride=stride),
        panoptic_head=dict(type='ColorHead', num_things_classes=NUM_THINGS, num_stuff_classes=NUM_STUFF),
        panoptic_fusion_head=dict(
            type='KMaXFusionHead', num_things_classes=NUM_THINGS, num_stuff_classes=NUM_STUFF),
        test_cfg=test_cfg)


def paint(size: Tuple[int, int], *areas: Tuple[Color, slice, slice]) -> np.ndarray:
    """Draw rectangles on void, later ones over earlier ones; returns (H, W, 3) uint8 in BGR."""
    image = np.full((*size, 3), VOID.rgb[0], np.uint8)
    for color, rows, cols in areas:
        image[rows, cols] = color.rgb[::-1]
    return image


def truth(image: np.ndarray) -> np.ndarray:
    """The panoptic map (H, W) of a painting: label + 1000 * (1 + color index), instance 0 for stuff."""
    panoptic_map = np.full(image.shape[:2], NUM_CLASSES)
    for index, color in enumerate(COLORS):
        value = color.label + (1000 * (index + 1) if color.label < NUM_THINGS else 0)
        panoptic_map[(image == color.rgb[::-1]).all(-1)] = value
    return panoptic_map


def assert_same_segments(panoptic_map: np.ndarray, expected: np.ndarray, where: Any = ...) -> None:
    """Check that two maps are equal up to the numbers of instances."""
    pairs = set(zip(np.asarray(panoptic_map)[where].ravel().tolist(), expected[where].ravel().tolist()))
    assert len({one for one, _ in pairs}) == len({other for _, other in pairs}) == len(pairs), pairs
    assert all(one % 1000 == other % 1000 and (one >= 1000) == (other >= 1000) for one, other in pairs), pairs


def away_from_borders(image: np.ndarray, pixels: int) -> np.ndarray:
    """Pixels (H, W) bool of a painting that are far from color borders and from the image border."""
    distance = [
        cv2.distanceTransform(np.pad((image == color.rgb[::-1]).all(-1), 1).astype(np.uint8), cv2.DIST_C, 3)
        for color in COLORS
    ]
    return np.max(distance, axis=0)[1:-1, 1:-1] > pixels


def as_input(image: np.ndarray) -> Tensor:
    """(3, H, W) uint8."""
    return torch.from_numpy(np.ascontiguousarray(image.transpose(2, 0, 1)))


def labels_of(segments_info: List[dict]) -> List[int]:
    return sorted(info['label'] for info in segments_info)
