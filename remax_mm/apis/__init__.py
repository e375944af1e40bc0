"""Use of trained models from Python, and of mmdet's tools on our configs."""
from .host_tools import find_mmdet_tool, run_mmdet_tool
from .panoptic_inferencer import PanopticInferencer, PanopticResult, list_images, load_config, save_result
from .run_config import (add_test_time_arguments, apply_test_time_arguments, loads_annotation, tested_dataset,
                         use_tiles, use_tta)

__all__ = [
    'PanopticInferencer', 'PanopticResult', 'add_test_time_arguments', 'apply_test_time_arguments',
    'find_mmdet_tool', 'list_images', 'load_config', 'run_mmdet_tool', 'loads_annotation', 'save_result',
    'tested_dataset', 'use_tiles', 'use_tta'
]
