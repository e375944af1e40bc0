"""CUDA graphs and compilation give the logits of the optimized network, which are those of the detector."""
import pytest
import torch
from mmdet.registry import MODELS

from remax_mm.deploy.cuda_graphs import use_cuda_graphs
from remax_mm.deploy.optimize import optimize_for_inference
from remax_mm.models.inference_copy import inference_copy
from tests.random_statistics import randomize_norms
from tests.tiny_model import detector_config


def _detector(device):
    return inference_copy(randomize_norms(MODELS.build(detector_config()))).to(device)


def _logits(model, images):
    with torch.no_grad():
        return model.panoptic_head.predict(model.extract_feat(images), [])


def test_cuda_graphs__logits_of_the_network(device):
    model = _detector(device)
    optimized = optimize_for_inference(model)
    runner = use_cuda_graphs(optimized)
    batches = [
        torch.randn(shape, device=device) for shape in ((1, 3, 65, 65), (1, 3, 65, 65), (2, 3, 65, 97))
    ]
    found = [_logits(optimized, images) for images in batches]
    assert not runner.reasons
    for images, logits in zip(batches, found):
        for one, expected in zip(logits, _logits(model, images)):
            torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-3)


@pytest.mark.parametrize('dtype', [torch.float16, torch.bfloat16])
def test_optimize__half_precision(dtype, device):
    model = _detector(device)
    optimized = optimize_for_inference(model, dtype=dtype)
    images = torch.randn(1, 3, 65, 65, device=device)
    for found, expected in zip(_logits(optimized, images), _logits(model, images)):
        assert found.dtype == torch.float32 and found.isfinite().all()
        assert (found - expected).std() < 0.1 * expected.std()


@pytest.mark.slow
def test_compile__logits_of_the_network(device):
    model = _detector(device)
    images = torch.randn(1, 3, 65, 65, device=device)
    found = _logits(optimize_for_inference(model, compile=True), images)
    for one, expected in zip(found, _logits(model, images)):
        torch.testing.assert_close(one, expected, rtol=1e-3, atol=1e-3)
