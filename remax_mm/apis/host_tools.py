"""Tools of the installed mmdet, run on configs of this package."""
import runpy
from pathlib import Path

import mmdet


def find_mmdet_tool(name: str) -> Path:
    """Path of one of mmdet's tools.

    Args:
        name: Path below mmdet's folder ``tools``, such as ``analysis_tools/get_flops.py``.

    Raises:
        FileNotFoundError: the installed mmdet does not contain it.
    """
    package = Path(mmdet.__file__).parent
    # An installed package has its tools in `.mim`, a checkout next to the package.
    candidates = [package / '.mim' / 'tools' / name, package.parent / 'tools' / name]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f'Expected mmdet\'s tool {name} at one of {[str(path) for path in candidates]}; '
                            'reinstall mmdet, or clone it and install it with `pip install -e`.')


def run_mmdet_tool(name: str) -> None:
    """Run a tool of mmdet in this process with the arguments of the command line."""
    runpy.run_path(str(find_mmdet_tool(name)), run_name='__main__')
