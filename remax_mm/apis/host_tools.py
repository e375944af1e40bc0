"""Tools of the installed mmdet, run on configs of this package."""
import __future__

import ast
import runpy
import sys
from importlib.util import find_spec
from pathlib import Path


def find_mmdet_tool(name: str) -> Path:
    """Path of one of mmdet's tools.

    Args:
        name: Path below mmdet's folder ``tools``, such as ``analysis_tools/get_flops.py``.

    Raises:
        FileNotFoundError: the installed mmdet does not contain it.
    """
    mmdet = find_spec('mmdet')  # not imported: that takes seconds
    if mmdet is None or mmdet.origin is None:
        raise FileNotFoundError(f'Expected mmdet\'s tool {name}, but mmdet is not installed.')
    package = Path(mmdet.origin).parent
    # An installed package has its tools in `.mim`, a checkout next to the package.
    candidates = [package / '.mim' / 'tools' / name, package.parent / 'tools' / name]
    for path in candidates:
        if path.is_file():
            return path
    raise FileNotFoundError(f'Expected mmdet\'s tool {name} at one of {[str(path) for path in candidates]}; '
                            'reinstall mmdet, or clone it and install it with `pip install -e`.')


def run_mmdet_tool(name: str) -> None:
    """Run a tool of mmdet in this process with the arguments of the command line."""
    path = find_mmdet_tool(name)
    if {'-h', '--help'} & set(sys.argv[1:]):
        _show_help(path)
    runpy.run_path(str(path), run_name='__main__')


def _show_help(path: Path) -> None:
    """Print the help of a tool without the imports at its top, which take seconds, and exit.

    A parser of mmdet needs argparse and mmengine's config only. If a tool's parser needs more, nothing is
    printed.
    """
    tree = ast.parse(path.read_text(encoding='utf-8'), str(path))
    tree.body = [node for node in tree.body if isinstance(node, ast.FunctionDef)]
    functions = compile(tree, str(path), 'exec', flags=__future__.annotations.compiler_flag)
    light = 'import argparse, os\nfrom mmengine.config import Config, DictAction\n'
    names: dict = {}
    exec(light, names)
    exec(functions, names)
    try:
        names['parse_args']()
    except (KeyError, NameError):
        pass
