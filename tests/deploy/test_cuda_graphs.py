"""What a CPU can show of CUDA graphs; tests/cuda/test_cuda_graphs.py records them."""
import pytest
import torch
from mmdet.registry import MODELS
from mmengine.registry import DefaultScope

from remax_mm.deploy import cuda_graphs
from remax_mm.deploy.cuda_graphs import CudaGraphRunner, Recording, use_cuda_graphs
from remax_mm.deploy.optimize import optimize_for_inference
from tests.mask_former_config import small_model
from tests.tiny_model import detector_config


@pytest.fixture(autouse=True)
def _mmdet_scope():
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


def test_use_cuda_graphs__falls_back_on_a_cpu():
    model = optimize_for_inference(MODELS.build(detector_config()).eval())
    images = torch.randn(1, 3, 65, 65)
    with torch.no_grad():
        expected = model.panoptic_head.predict(images, [])
    runner = use_cuda_graphs(model)
    for _ in range(2):
        for found, other in zip(model.panoptic_head.predict(model.extract_feat(images), []), expected):
            assert torch.equal(found, other)
    assert list(runner.reasons.values()) == ['they are on cpu, not on a GPU of NVIDIA']


class _Graph:
    """Replays a function as a CUDA graph does: into the same tensors."""

    def __init__(self, function, images, outputs):
        self.function, self.images, self.outputs = function, images, outputs

    def replay(self):
        for output, value in zip(self.outputs, self.function(self.images)):
            output.copy_(value)


def _function(images):
    return images.sum((1, 2, 3)), images * 2


@pytest.fixture
def _recorded(monkeypatch):
    """Shapes that were recorded, on a CPU."""
    shapes = []

    def record(function, images):
        shapes.append(tuple(images.shape))
        images = images.clone()
        outputs = function(images)
        return Recording(_Graph(function, images, outputs), images, outputs)

    monkeypatch.setattr(cuda_graphs, 'record', record)
    monkeypatch.setattr(
        CudaGraphRunner, '_why_not', lambda self, images: None
        if len(self._recordings) < cuda_graphs.MAX_SHAPES else 'too many')
    return shapes


def test_runner__one_recording_for_each_shape(_recorded):
    runner, results = CudaGraphRunner(_function), []
    images = [torch.randn(1, 3, side, side) for side in (5, 5, 7, 5)]
    for image in images:
        results.append(runner(image))
    assert _recorded == [(1, 3, 5, 5), (1, 3, 7, 7)]
    # A later image does not change an earlier result.
    for image, result in zip(images, results):
        for found, expected in zip(result, _function(image)):
            assert torch.equal(found, expected)


def test_runner__too_many_shapes(_recorded):
    runner = CudaGraphRunner(_function)
    for side in range(cuda_graphs.MAX_SHAPES + 2):
        image = torch.randn(1, 3, side + 1, 4)
        assert torch.equal(runner(image)[1], image * 2)
    assert len(_recorded) == cuda_graphs.MAX_SHAPES and set(runner.reasons.values()) == {'too many'}


def test_runner__recording_fails(monkeypatch, caplog):

    def record(function, images):
        raise RuntimeError('operation not permitted when stream is capturing')

    monkeypatch.setattr(cuda_graphs, 'record', record)
    monkeypatch.setattr(CudaGraphRunner, '_why_not', lambda self, images: None)
    runner = CudaGraphRunner(_function)
    image = torch.randn(1, 3, 5, 5)
    assert torch.equal(runner(image)[1], image * 2)
    assert list(runner.reasons.values()) == [
        'the recording failed: operation not permitted when stream is capturing'
    ]


@pytest.mark.slow
def test_use_cuda_graphs__wrong_models():
    with pytest.raises(TypeError, match='but got MaskTransformer with KMaXHead'):
        use_cuda_graphs(MODELS.build(detector_config()))
    with pytest.raises(TypeError, match='but got MaskFormer with HostNetwork'):
        use_cuda_graphs(optimize_for_inference(small_model('MaskFormer')))
