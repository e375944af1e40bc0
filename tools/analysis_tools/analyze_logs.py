"""Plot curves of training logs, or average their iteration times, with mmdet's own tool.

    python tools/analysis_tools/analyze_logs.py plot_curve LOG.json --keys loss_cls --out losses.png
    python tools/analysis_tools/analyze_logs.py cal_train_time LOG.json

The logs are the files `<time>/vis_data/<time>.json` of a work dir. Curves need the package `seaborn`.
"""
import sys
from importlib.util import find_spec

from remax_mm.apis.host_tools import run_tool

if __name__ == '__main__':
    if find_spec('seaborn') is None:
        raise SystemExit('mmdet\'s analyze_logs.py needs the package `seaborn`: pip install seaborn')
    run_tool('mmdet/analysis_tools/analyze_logs.py', sys.argv[1:])
