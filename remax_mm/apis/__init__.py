"""Use of trained models from Python, configs of runs, and what the command-line tools share."""
from .input_images import list_images
from .panoptic_inferencer import FailedImagesError, PanopticInferencer
from .panoptic_result import PanopticResult, keep_segments, save_overlay, save_segments
from .run_config import find_training, load_config, use_tiles, use_tta

__all__ = [
    'FailedImagesError', 'PanopticInferencer', 'PanopticResult', 'keep_segments', 'list_images',
    'save_overlay', 'save_segments', 'find_training', 'load_config', 'use_tiles', 'use_tta'
]
