"""Count parameters and multiply-accumulates on validation images: mmdet's own tool, on our configs.

    python tools/analysis_tools/get_flops.py CONFIG [--num-images 100] [--cfg-options ...]

`model_complexity.py` needs no images, and tells the parts of a model apart.
"""
import remax_mm  # noqa: F401  (makes mmdet importable and registers the models)
from remax_mm.apis import run_mmdet_tool

if __name__ == '__main__':
    run_mmdet_tool('analysis_tools/get_flops.py')
