"""Optimization of the model before a test."""
from typing import Dict, Optional

import torch
from mmdet.registry import HOOKS
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner

from remax_mm.deploy.optimize import optimize_for_inference

DTYPES: Dict[str, Optional[torch.dtype]] = dict(float32=None, bfloat16=torch.bfloat16, float16=torch.float16)


@HOOKS.register_module()
class OptimizeHook(Hook):
    """Replace the model of the runner by its optimized copy after its weights are loaded and checked.

    See :func:`optimize_for_inference`.

    Args:
        dtype: ``float32``, or ``bfloat16`` or ``float16`` for autocast.

    Raises:
        ValueError: another ``dtype``.
    """
    priority = 'VERY_LOW'

    def __init__(self, dtype: str = 'float32') -> None:
        if dtype not in DTYPES:
            raise ValueError(f'Expected `dtype` to be one of {", ".join(DTYPES)}, but got {dtype!r}')
        self.dtype = DTYPES[dtype]

    def before_test(self, runner: Runner) -> None:
        """Optimize; each process does so for itself, and a test needs no communication of the model."""
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        runner.model = optimize_for_inference(model, dtype=self.dtype)
        detector = getattr(runner.model, 'module', runner.model)
        runner.logger.info(f'Optimized for inference: {detector.panoptic_head.report}')
