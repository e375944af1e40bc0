"""Run a tool of the installed mmdet, on configs of this package."""
import runpy
from importlib.util import find_spec
from pathlib import Path


def find_mmdet_tool(name: str) -> Path:
    """Path of one of mmdet's tools.

    Args:
        name: Path below mmdet's ``tools``, such as ``analysis_tools/get_flops.py``.

    Raises:
        FileNotFoundError: the installed mmdet does not bring it.
    """
    package = Path(find_spec('mmdet').origin).parent
    # An installed package keeps its tools in `.mim`, a checkout beside the package.
    candidates = [package / '.mim' / 'tools' / name, package.parent / 'tools' / name]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f'Expected mmdet\'s tool {name} at one of {[str(path) for path in candidates]}; '
                            'reinstall mmdet, or clone it and install it with `pip install -e`.')


def run_mmdet_tool(name: str) -> None:
    """Run a tool of mmdet in this process with the arguments of the command line."""
    runpy.run_path(str(find_mmdet_tool(name)), run_name='__main__')
