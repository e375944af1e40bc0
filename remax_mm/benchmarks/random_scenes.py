"""Drawn panoptic annotations and predictions close to them, without images."""
from pathlib import Path
from typing import Sequence, Tuple

import cv2
import numpy as np
import torch
from mmengine.fileio import dump

from remax_mm.panoptic_format import read_segment_ids, write_segment_ids

NUM_THINGS, NUM_CLASSES = 80, 133  # as COCO
META = dict(
    classes=[f'class {label}' for label in range(NUM_CLASSES)],
    thing_classes=[f'class {label}' for label in range(NUM_THINGS)])


def draw_segments(rng: np.random.Generator, height: int, width: int, number: int) -> np.ndarray:
    """(H, W) int32 in [1, number]: five areas with irregular borders, and polygons on them."""
    rough = rng.normal(size=(height // 32 + 2, width // 32 + 2)).astype(np.float32)
    rough = cv2.resize(rough, (width, height), interpolation=cv2.INTER_CUBIC)
    drawn = (1 + np.searchsorted(np.quantile(rough, [0.2, 0.4, 0.6, 0.8]), rough)).astype(np.int32)
    angles = np.linspace(0, 2 * np.pi, 16, endpoint=False)
    for value in range(6, number + 1):
        radius = min(height, width) * rng.uniform(0.02, 0.2) * rng.uniform(0.5, 1.2, len(angles))
        x = rng.integers(width) + radius * np.cos(angles)
        y = rng.integers(height) + radius * np.sin(angles)
        cv2.fillPoly(drawn, [np.stack([x, y], axis=1).astype(np.int32)], value)
    return drawn


def write_scene(rng: np.random.Generator, folder: Path, name: str, size: Tuple[int, int]) -> dict:
    """Draw 15 to 40 segments and write their PNG.

    Returns:
        A data sample whose prediction is shifted by a few pixels and lacks some segments.
    """
    drawn = draw_segments(rng, *size, number=int(rng.integers(15, 41)))
    values, drawn = np.unique(drawn, return_inverse=True)
    drawn = drawn.reshape(size)
    ids = rng.choice(np.arange(1, 256**3, 97), len(values), replace=False)
    labels = [NUM_THINGS + i if i < 5 else int(rng.integers(NUM_THINGS)) for i in range(len(values))]
    write_segment_ids(folder / f'{name}.png', ids[drawn])
    infos = [
        dict(id=int(i), category=label, is_thing=label < NUM_THINGS, iscrowd=False)
        for i, label in zip(ids, labels)
    ]

    found = np.array([label + 1000 * (row + 1) * (label < NUM_THINGS) for row, label in enumerate(labels)])
    found[rng.random(len(found)) < 0.1] = NUM_CLASSES  # void
    moved = np.roll(drawn, (2, 3), axis=(0, 1))
    return dict(
        img_id=int(name),
        img_path=f'{name}.jpg',
        ori_shape=size,
        seg_map_path=str(folder / f'{name}.png'),
        segments_info=infos,
        pred_panoptic_seg=dict(sem_seg=torch.from_numpy(found[moved].astype(np.int32))[None]))


def write_annotations(path: Path, samples: Sequence[dict]) -> None:
    """Write the JSON of the annotations, which MMDetection's metric reads."""
    annotations = []
    for sample in samples:
        ids = read_segment_ids(sample['seg_map_path'])
        segments = [
            dict(
                id=info['id'],
                category_id=info['category'] + 1,
                iscrowd=0,
                area=int((ids == info['id']).sum())) for info in sample['segments_info']
        ]
        annotations.append(
            dict(
                image_id=sample['img_id'],
                file_name=Path(sample['seg_map_path']).name,
                segments_info=segments))
    images = [dict(id=sample['img_id'], file_name=sample['img_path']) for sample in samples]
    categories = [
        dict(id=label + 1, name=name, isthing=int(label < NUM_THINGS))
        for label, name in enumerate(META['classes'])
    ]
    dump(dict(images=images, annotations=annotations, categories=categories), path)
