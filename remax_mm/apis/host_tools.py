"""The command-line tools of the installed mmdet and of this package, run with this package imported."""
import __future__

import ast
import difflib
import runpy
import sys
import traceback
from importlib.machinery import SourceFileLoader
from importlib.util import find_spec
from pathlib import Path
from types import ModuleType
from typing import Any, Dict, List, Sequence


def list_tools() -> List[str]:
    """Names of all tools, such as ``mmdet/analysis_tools/get_flops.py``."""
    return [
        f'{package}/{path.relative_to(folder)}' for package, folder in _tool_folders().items()
        for path in sorted(folder.rglob('*.py'))
    ]


def find_tool(name: str) -> Path:
    """Path of a tool.

    Args:
        name: Name of the package, and path below its folder ``tools``, as :func:`list_tools` gives it.

    Raises:
        FileNotFoundError: there is no such tool; the message has the nearest names.
    """
    tools = list_tools()
    if name not in tools:
        nearest = (
            difflib.get_close_matches(name, tools, 3)
            or [tool for tool in tools if tool.endswith(f'/{name}')])
        raise FileNotFoundError(f'Expected the name of a tool, but got {name}; ' +
                                (f'did you mean {" or ".join(nearest)}?'
                                 if nearest else 'they are listed by `python -m remax_mm.tool`'))
    package, _, below = name.partition('/')
    return _tool_folders()[package] / below


def run_tool(name: str, arguments: Sequence[str]) -> None:
    """Run a tool in this process, as a script.

    MMDetection's tools that expect boxes are adapted to panoptic datasets (:mod:`.host_tool_adapters`).

    Args:
        name: See :func:`find_tool`.
        arguments: The command line of the tool.

    Raises:
        FileNotFoundError: there is no such tool.
        SystemExit: the tool failed, after its traceback; the message says what the tool needs.
    """
    path = find_tool(name)
    sys.argv = [str(path), *arguments]
    sys.path.insert(0, str(path.parent))  # as Python does for a script
    if name.startswith('mmdet/') and {'-h', '--help'} & set(arguments):
        _show_help(path)

    # Imported here, because it imports mmdet, which takes seconds.
    from .host_tool_adapters import ADAPTERS, HINTS
    try:
        if name in ADAPTERS:
            tool: Any = ModuleType(path.stem)
            SourceFileLoader(path.stem, str(path)).exec_module(tool)
            ADAPTERS[name](tool)
            tool.main()
        else:
            runpy.run_path(str(path), run_name='__main__')
    except Exception:
        if name not in HINTS:
            raise
        traceback.print_exc()
        raise SystemExit(f'{name}: {HINTS[name]}')


def _tool_folders() -> Dict[str, Path]:
    """Folder of the tools of each package: ``.mim`` of an installed package, or next to it in a checkout."""
    folders = {}
    for name in ('mmdet', 'remax_mm'):
        package = find_spec(name)
        if package is not None and package.origin is not None:
            parent = Path(package.origin).parent
            candidates = [
                folder for folder in (parent / '.mim' / 'tools', parent.parent / 'tools') if folder.is_dir()
            ]
            folders.update({name: folder for folder in candidates[:1]})
    return folders


def _show_help(path: Path) -> None:
    """Print the help of a tool of mmdet without the imports at its top, which take seconds, and exit.

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
