"""What of a training step waits for the GPU: the matching alone."""
import warnings

import numpy as np
import pytest
import torch
from mmengine.dataset import pseudo_collate
from mmengine.optim import build_optim_wrapper
from torch.utils.data._utils.pin_memory import pin_memory

from remax_mm.datasets import PackPanopticInputs
from remax_mm.models.data_preprocessors import PanopticDataPreprocessor
from tests.cuda.models import build_model, training_batch

OURS = ('kMaX-DeepLab', 'ReMaX', 'MaX-DeepLab')


@pytest.mark.parametrize('head', OURS)
def test_training_step__waits_for_the_matching_alone(head, device):
    """From a pinned batch to the updated weights. The matching copies its similarities to the host, and the
    pairs back."""
    model = build_model(head).to(device)
    wrapper = build_optim_wrapper(model, dict(type='OptimWrapper', optimizer=dict(type='AdamW', lr=1e-4)))

    def step():
        batch = pin_memory(training_batch(model))
        torch.cuda.set_sync_debug_mode('warn')
        try:
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter('always')
                model.train_step(batch, wrapper)
        finally:
            torch.cuda.set_sync_debug_mode('default')
        return [str(wait.message) for wait in waits if 'synchronizing' in str(wait.message)]

    step()
    assert len(step()) == 2


def test_pinned_batch__copies_do_not_wait(device):
    """The samples of `PackPanopticInputs`, as the thread of a data loader pins them."""
    step = PackPanopticInputs()
    packed = [
        step.transform(
            dict(
                img=np.zeros((33, 33, 3), np.uint8),
                gt_seg_map=np.ones((33, 33), np.uint8),
                gt_segment_labels=np.array([1]),
                gt_segment_is_thing=np.array([True]))) for _ in range(2)
    ]
    batch = pin_memory(pseudo_collate(packed))
    assert batch['data_samples'][0].gt_panoptic_seg.segment_map.is_pinned()
    preprocessor = PanopticDataPreprocessor(pad_size=65).to(device)
    torch.cuda.set_sync_debug_mode('error')
    try:
        data = preprocessor(batch, training=True)
    finally:
        torch.cuda.set_sync_debug_mode('default')
    sample = data['data_samples'][0]
    assert sample.gt_panoptic_seg.segment_map.is_cuda and sample.gt_segments.labels.tolist() == [1]
