"""Measure a fusion head of the package that is importable; it also runs with older commits of the package.

    python remax_mm/analysis/fusion_worker.py REQUEST

The request is JSON with the fields of :class:`Request`. The answer, ``package``, ``seconds`` and
``peak_memory``, is written to standard output as JSON, and the results of fusion to the file ``results``.
Unix only.
"""
import json
import resource
import sys
import time
from typing import Any, Dict, NamedTuple, Tuple

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

import remax_mm  # makes mmdet importable

NUM_THINGS, NUM_STUFF = 80, 53  # as COCO
NUM_CONFIDENT = 20
BALLAST = 2**29
"""Bytes by which the resident set is lifted above the peak of the imports."""
TASKS = dict(
    panoptic=('KMaXFusionHead', 'panoptic_on'),
    pixelwise=('MaXFusionHead', 'panoptic_on'),
    instances=('KMaXFusionHead', 'instance_on'),
    semantic=('KMaXFusionHead', 'semantic_on'))
"""The fusion head and the option that turns a task on."""


class Request(NamedTuple):
    """What to measure.

    Attributes:
        task: one of ``TASKS``.
        side: height and width of the image and of the network input.
        num_slots: N.
        repeats: number of timed calls.
        results: file for the results.
    """
    task: str
    side: int
    num_slots: int
    repeats: int
    results: str


def draw_logits(side: int, num_slots: int) -> Tuple[Tensor, Tensor]:
    """Class logits (1, N, K + 1) with 20 confident slots, and mask logits (1, N, h, w) at stride 4."""
    rng = np.random.RandomState(0)
    num_classes = NUM_THINGS + NUM_STUFF
    class_logits = rng.randn(num_slots, num_classes + 1)
    class_logits[:, -1] += 12
    slots = np.arange(min(NUM_CONFIDENT, num_slots))
    class_logits[slots, slots * 7 % num_classes] += 18

    length = (side - 1) // 4 + 1
    coarse = torch.from_numpy(5 * rng.randn(1, num_slots, *[length // 8 + 2] * 2)).float()
    mask_logits = F.interpolate(coarse, (length, length), mode='bilinear', align_corners=True)
    mask_logits += torch.from_numpy(rng.randn(num_slots, length, length)).float()
    return torch.from_numpy(class_logits).float()[None], mask_logits


def collect_results(result: Dict[str, Any]) -> Dict[str, Tensor]:
    """Maps or masks, and scores, of one image."""
    if 'ins_results' in result:
        return dict(maps=result['ins_results'].masks, scores=result['ins_results'].scores)
    if 'sem_results' in result:
        return dict(maps=result['sem_results'].sem_seg, scores=torch.zeros(0))
    panoptic = result['pan_results']
    return dict(
        maps=panoptic.sem_seg, scores=torch.tensor([info['score'] for info in panoptic.segments_info]))


def peak_bytes() -> int:
    """The largest resident set of this process so far."""
    peak = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    return peak if sys.platform == 'darwin' else peak * 1024


@torch.no_grad()
def measure(request: Request) -> Dict[str, Any]:
    """CPU seconds of each call, and by how many bytes the first call raises the largest resident set."""
    from mmdet.registry import MODELS
    from mmdet.structures import DetDataSample

    from remax_mm.models import heads  # noqa: F401  (registers the fusion heads)

    head_type, option = TASKS[request.task]
    test_cfg = dict(dict(panoptic_on=False, instance_on=False, semantic_on=False), **{option: True})
    head = MODELS.build(
        dict(type=head_type, num_things_classes=NUM_THINGS, num_stuff_classes=NUM_STUFF, test_cfg=test_cfg))
    size = (request.side, request.side)
    sample = DetDataSample(metainfo=dict(batch_input_shape=size, img_shape=size, ori_shape=size))
    logits = draw_logits(request.side, request.num_slots)

    ballast = np.ones(BALLAST, np.uint8)
    before = peak_bytes()
    result, = head.predict(*logits, [sample], rescale=True)
    growth = peak_bytes() - before
    del ballast
    torch.save(collect_results(result), request.results)
    del result

    seconds = []
    for _ in range(request.repeats):
        start = time.process_time()
        head.predict(*logits, [sample], rescale=True)
        seconds.append(time.process_time() - start)
    return dict(seconds=seconds, peak_memory=growth)


if __name__ == '__main__':
    torch.set_num_threads(1)
    cost = measure(Request(**json.loads(sys.argv[1])))
    print(json.dumps(dict(package=remax_mm.__file__, **cost)))
