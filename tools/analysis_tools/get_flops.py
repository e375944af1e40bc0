"""Count parameters and multiply-accumulates on validation images with mmdet's own tool.

    python tools/analysis_tools/get_flops.py CONFIG [--num-images 100] [--cfg-options ...]

`model_complexity.py` needs no images and lists the parts of a model separately.
"""
from remax_mm.apis.host_tools import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('analysis_tools/get_flops.py')
