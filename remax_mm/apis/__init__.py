"""Use of trained models from Python, configs of runs, and what the command-line tools share."""
from .panoptic_inferencer import (FailedImagesError, PanopticInferencer, PanopticResult, list_images,
                                  save_result)
from .run_config import load_config, use_tiles, use_tta

__all__ = [
    'FailedImagesError', 'PanopticInferencer', 'PanopticResult', 'list_images', 'save_result', 'load_config',
    'use_tiles', 'use_tta'
]
