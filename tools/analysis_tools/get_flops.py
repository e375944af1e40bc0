"""Count parameters and multiply-accumulates on validation images with mmdet's own tool.

    python tools/analysis_tools/get_flops.py CONFIG [--num-images 100] [--cfg-options ...]

`model_complexity.py` needs no images and lists the parts of a model separately.
"""
import sys

from remax_mm.apis.host_tools import run_tool

if __name__ == '__main__':
    run_tool('mmdet/analysis_tools/get_flops.py', sys.argv[1:])
