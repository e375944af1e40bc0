"""Small random panoptic maps with annotations, for tests of the file format and of evaluation."""
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Sequence

import numpy as np
import torch
from mmdet.structures import DetDataSample
from mmengine.structures import InstanceData, PixelData

from remax_mm.panoptic_format import number_segments, write_segment_ids

NUM_THINGS, NUM_CLASSES = 3, 6
VOID = NUM_CLASSES
CLASSES = ('cat', 'dog', 'car', 'sky', 'sea', 'road')
IS_THING = [label < NUM_THINGS for label in range(NUM_CLASSES)]
META = dict(classes=CLASSES, thing_classes=CLASSES[:NUM_THINGS], stuff_classes=CLASSES[NUM_THINGS:])
KINDS = ('mixed', 'things-only', 'stuff-only', 'crowd-heavy', 'void-heavy')


class Case(NamedTuple):
    """A prediction (label + 1000 * instance), annotated segment ids, and the list of annotated segments."""
    prediction: np.ndarray
    ground_truth: np.ndarray
    segments: List[Dict[str, Any]]


def segment(segment_id: int, category: int, iscrowd: bool = False) -> Dict[str, Any]:
    return dict(id=segment_id, category=category, iscrowd=iscrowd)


def panoptic_value(label: int, instance: int) -> int:
    return label + 1000 * instance if label < NUM_THINGS else label


def draw_blocks(rng: np.random.Generator, values: Sequence[int], size: int) -> np.ndarray:
    """An (S, S) map of overlapping random rectangles."""
    drawn = np.full((size, size), values[0])
    for value in values:
        top, left = rng.integers(0, size - 1, 2)
        height, width = rng.integers(1, size, 2)
        drawn[top:top + height, left:left + width] = value
    return drawn


def random_case(rng: np.random.Generator, size: int = 12) -> Case:
    """An annotation with crowd and void, and a prediction with wrong, missing and additional segments."""
    ids = np.unique(rng.integers(1, 256**3, 7))
    ground_truth = draw_blocks(rng, [0, *ids.tolist(), 0], size)
    categories = {int(i): int(rng.integers(NUM_CLASSES)) for i in np.unique(ground_truth) if i}
    segments = [segment(i, c, iscrowd=bool(rng.random() < 0.25)) for i, c in categories.items()]
    rng.shuffle(segments)

    value_of = {0: VOID}
    for instance, (segment_id, category) in enumerate(categories.items(), start=1):
        if rng.random() < 0.2:
            category = int(rng.integers(NUM_CLASSES))
        missing = rng.random() < 0.1
        value_of[segment_id] = VOID if missing else panoptic_value(category, instance)
    prediction = np.vectorize(value_of.get)(ground_truth)
    for instance in range(20, 20 + rng.integers(4)):
        top, left, height, width = rng.integers(1, size // 2, 4)
        extra = panoptic_value(int(rng.integers(NUM_CLASSES)), instance)
        prediction[top:top + height, left:left + width] = VOID if rng.random() < 0.2 else extra
    prediction = np.where(rng.random(prediction.shape) < 0.05, VOID, prediction)
    return Case(prediction, ground_truth, segments)


def perfect_case(rng: np.random.Generator, kind: str, size: int = 24) -> Case:
    """An annotation of a kind in ``KINDS``, and a prediction that equals it; crowd regions become void."""
    num_things = 0 if kind == 'stuff-only' else 6
    num_stuff = 0 if kind == 'things-only' else NUM_CLASSES - NUM_THINGS
    categories = [
        *range(NUM_THINGS, NUM_THINGS + num_stuff), *rng.integers(0, NUM_THINGS, num_things).tolist()
    ]
    ids = rng.permutation(np.unique(rng.integers(1, 256**3, 64)))[:len(categories)].tolist()
    ground_truth = draw_blocks(rng, ids, size)
    if kind == 'void-heavy':
        ground_truth[rng.random(ground_truth.shape) < 0.8] = 0
    left = set(np.unique(ground_truth).tolist())
    crowd_share = 0.7 if kind == 'crowd-heavy' else 0.
    segments = [
        segment(i, c, iscrowd=bool(c < NUM_THINGS and rng.random() < crowd_share))
        for i, c in zip(ids, categories) if i in left
    ]
    value_of = {0: VOID}
    for instance, entry in enumerate(segments, start=1):
        value_of[entry['id']] = VOID if entry['iscrowd'] else panoptic_value(entry['category'], instance)
    return Case(np.vectorize(value_of.get)(ground_truth), ground_truth, segments)


def index_by_loop(ids: np.ndarray, table_ids: Sequence[int]) -> np.ndarray:
    """Index map of segment ids, pixel by pixel: i where the id is ``table_ids[i - 1]``, otherwise 0."""
    index_of = {segment_id: index for index, segment_id in enumerate(table_ids, start=1)}
    return np.array([[index_of.get(value, 0) for value in row] for row in ids.tolist()])


def data_sample(folder: Path, name: str, ground_truth: np.ndarray, segments: Sequence[dict]) -> DetDataSample:
    """A data sample without predictions, whose annotated PNG is written to ``folder``."""
    path = str(folder / f'{name}.png')
    write_segment_ids(path, np.asarray(ground_truth))
    infos = [dict(entry, is_thing=entry['category'] < NUM_THINGS) for entry in segments]
    return DetDataSample(
        metainfo=dict(
            img_id=name,
            img_path=f'images/{name}.jpg',
            ori_shape=np.shape(ground_truth),
            seg_map_path=path,
            segments_info=infos))


def instances(masks: Any, labels: Sequence[int], scores: Sequence[float]) -> InstanceData:
    """Predicted instances with masks (n, H, W) and the boxes of the masks."""
    masks = torch.as_tensor(np.asarray(masks)).bool()
    boxes = [[
        *mask.nonzero().min(0).values.flip(0).tolist(), *(mask.nonzero().max(0).values.flip(0) + 1).tolist()
    ] for mask in masks]
    return InstanceData(
        masks=masks,
        labels=torch.tensor(labels, dtype=torch.long),
        scores=torch.tensor(scores),
        bboxes=torch.tensor(boxes, dtype=torch.float32).reshape(-1, 4))


def perfect_sample(folder: Path, name: str, case: Case) -> DetDataSample:
    """A data sample with the prediction of a perfect case as panoptic map, instances and semantic map."""
    sample = data_sample(folder, name, case.ground_truth, case.segments)
    things = [s for s in case.segments if s['category'] < NUM_THINGS and not s['iscrowd']]
    masks = np.array([case.ground_truth == s['id'] for s in things]).reshape(-1, *case.ground_truth.shape)
    sample.pred_panoptic_seg = PixelData(sem_seg=torch.tensor(case.prediction)[None])
    sample.pred_instances = instances(masks, [s['category'] for s in things],
                                      np.linspace(0.9, 0.5, len(things)).tolist())
    semantic = np.zeros(case.ground_truth.shape, dtype=np.int64)  # void pixels have a class, too
    for entry in case.segments:
        semantic[case.ground_truth == entry['id']] = entry['category']
    sample.pred_sem_seg = PixelData(sem_seg=torch.tensor(semantic)[None])
    return sample


CATEGORY_IDS = (90, 4, 13, 200, 7, 1)
"""Category ids of ``CLASSES``, with gaps and not in ascending order."""


def write_panoptic_files(folder: Path, cases: Sequence[Case]) -> Dict[str, Path]:
    """Write files of panopticapi; returns ``gt_json``, ``gt_folder``, ``pred_json`` and ``pred_folder``."""
    images, annotations, predictions = [], [], []
    for number, case in enumerate(cases):
        name = f'{number:06d}'
        write_segment_ids(folder / 'gt' / f'{name}.png', case.ground_truth)
        ids, predicted = number_segments(case.prediction, NUM_CLASSES)
        write_segment_ids(folder / 'pred' / f'{name}.png', ids)
        height, width = case.ground_truth.shape
        images.append(dict(id=number, file_name=f'{name}.jpg', height=height, width=width))
        entry = dict(image_id=number, file_name=f'{name}.png')
        annotated = [
            dict(id=int(s['id']), category_id=CATEGORY_IDS[s['category']], iscrowd=int(s['iscrowd']))
            for s in case.segments
        ]
        annotations.append(dict(entry, segments_info=annotated))
        predictions.append(
            dict(
                entry,
                segments_info=[dict(id=s['id'], category_id=CATEGORY_IDS[s['label']]) for s in predicted]))
    categories = [
        dict(id=i, name=name, isthing=int(thing))
        for i, name, thing in sorted(zip(CATEGORY_IDS, CLASSES, IS_THING))
    ]
    (folder / 'gt.json').write_text(
        json.dumps(dict(images=images, annotations=annotations, categories=categories)))
    (folder / 'pred.json').write_text(json.dumps(dict(annotations=predictions[::-1])))
    return dict(
        gt_json=folder / 'gt.json',
        gt_folder=folder / 'gt',
        pred_json=folder / 'pred.json',
        pred_folder=folder / 'pred')
