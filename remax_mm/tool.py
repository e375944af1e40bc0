"""Run a tool of MMDetection or of this package, with this package imported before.

    python -m remax_mm.tool                                              # lists the tools
    python -m remax_mm.tool mmdet/analysis_tools/get_flops.py CONFIG     # runs one of them

MMDetection's tools import mmdet before they read a config, which fails if mmcv has no compiled ops. Here the
packages are prepared first, as by `import remax_mm`. Options after the name are those of the tool.
"""
import sys
from typing import Optional, Sequence

from remax_mm.apis.host_tools import find_tool, list_tools, run_tool


def main(arguments: Optional[Sequence[str]] = None) -> None:
    arguments = list(sys.argv[1:] if arguments is None else arguments)
    if not arguments or arguments[0] in ('-h', '--help'):
        print(__doc__)
        print(*list_tools(), sep='\n')
        return
    try:
        find_tool(arguments[0])
    except FileNotFoundError as error:
        raise SystemExit(str(error)) from error
    run_tool(arguments[0], arguments[1:])


if __name__ == '__main__':
    main()
