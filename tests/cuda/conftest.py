"""Fixtures of the tests that need a GPU: ``make test-cuda``."""
from typing import Any, Iterator

import pytest
import torch
import torch.nn.functional as F
from mmdet.models.losses import focal_loss
from mmengine.registry import DefaultScope
from torch import Tensor


@pytest.fixture(scope='session', autouse=True)
def device() -> torch.device:
    """The first GPU."""
    if not torch.cuda.is_available():
        pytest.skip('needs a GPU that torch can use')
    return torch.device('cuda', 0)


@pytest.fixture(autouse=True)
def _mmdet_scope() -> Iterator[None]:
    with DefaultScope.overwrite_default_scope('mmdet'):
        yield


@pytest.fixture(autouse=True)
def _float32_is_float32(monkeypatch: pytest.MonkeyPatch) -> None:
    """By default, convolutions round float32 inputs to the 10 bits of TF32."""
    monkeypatch.setattr(torch.backends.cudnn, 'allow_tf32', False)


@pytest.fixture(autouse=True)
def _ops_of_pytorch(monkeypatch: pytest.MonkeyPatch) -> None:
    """On a GPU, mmdet's heads call two compiled ops of mmcv. mmcv-lite has neither, and the one of deformable
    attention does not take bfloat16. What is tested are the heads, so they run what they run on a CPU."""
    monkeypatch.setattr('mmcv.ops.multi_scale_deform_attn.IS_CUDA_AVAILABLE', False)
    monkeypatch.setattr(focal_loss, 'sigmoid_focal_loss', _sigmoid_focal_loss)


def _sigmoid_focal_loss(pred: Tensor, target: Tensor, *args: Any, **kwargs: Any) -> Tensor:
    """mmdet's PyTorch version, given labels (n,) for logits (n, C) as the compiled op is."""
    one_hot = F.one_hot(target, pred.shape[1] + 1)[:, :-1]
    return focal_loss.py_sigmoid_focal_loss(pred, one_hot, *args, **kwargs)
