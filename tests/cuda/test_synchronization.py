"""What of a training step waits for the GPU: the matching alone."""
import warnings

import pytest
import torch

from tests.cuda.models import build_model, training_batch

OURS = ('kMaX-DeepLab', 'ReMaX', 'MaX-DeepLab')


@pytest.mark.parametrize('head', OURS)
def test_training_step__waits_for_the_matching_alone(head, device):
    """The matching copies its similarities to the host, and the pairs back."""
    model = build_model(head).to(device)

    def step():
        data = model.data_preprocessor(training_batch(model), training=True)
        torch.cuda.set_sync_debug_mode('warn')
        try:
            with warnings.catch_warnings(record=True) as waits:
                warnings.simplefilter('always')
                sum(model(**data, mode='loss').values()).backward()
        finally:
            torch.cuda.set_sync_debug_mode('default')
        return [str(wait.message) for wait in waits if 'synchronizing' in str(wait.message)]

    step()
    assert len(step()) == 2
