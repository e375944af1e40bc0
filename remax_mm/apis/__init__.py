"""Use of trained models from Python, and of mmdet's tools on our configs."""
from .host_tools import find_mmdet_tool, run_mmdet_tool
from .panoptic_inferencer import PanopticInferencer, PanopticResult, list_images, save_result

__all__ = [
    'PanopticInferencer', 'PanopticResult', 'find_mmdet_tool', 'list_images', 'run_mmdet_tool', 'save_result'
]
