"""What targets and training steps take of the GPU's memory."""
import gc

import pytest
import torch
from mmdet.structures import DetDataSample
from mmengine.optim import build_optim_wrapper
from mmengine.structures import InstanceData, PixelData

from remax_mm.analysis.training_overhead import peak_memory
from remax_mm.models.task_modules import build_panoptic_targets
from tests.cuda.models import HEADS, build_model, training_batch

SIDE, STRIDE = 1281, 4
THINGS, STUFF = 40, 20  # segments of the image, each of a class of its own


def test_build_panoptic_targets__peak_memory(device):
    """Of one image: at most four int64 maps at mask size, and no mask per segment."""
    rows, columns = torch.arange(SIDE)[:, None], torch.arange(SIDE)
    segment_map = (rows * 10 // SIDE * 6 + columns * 6 // SIDE + 1).to(torch.uint8)
    labels = torch.arange(THINGS + STUFF)
    sample = DetDataSample(
        gt_panoptic_seg=PixelData(segment_map=segment_map[None]),
        gt_segments=InstanceData(labels=labels, is_thing=labels < THINGS)).to(device)

    def build():
        return build_panoptic_targets([sample], THINGS + STUFF, [(SIDE - 1) // STRIDE + 1] * 2)

    pixels = ((SIDE - 1) // STRIDE + 1)**2
    assert build().owner.nbytes == 8 * pixels
    assert 2 * 8 * pixels < peak_memory(build) <= 4 * 8 * pixels


@pytest.mark.parametrize('head', HEADS)
def test_train_step__leaves_no_memory_behind(head, device):
    """After the second step; the first one creates the optimizer's state."""
    model = build_model(head).to(device)
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4)))
    allocated = []
    for _ in range(6):
        model.train_step(training_batch(model), wrapper)
        gc.collect()
        allocated.append(torch.cuda.memory_allocated(device))
    assert allocated[2:] == allocated[1:2] * 4
