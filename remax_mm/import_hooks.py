"""Calls right after a module is imported for the first time.

They let ``import remax_mm`` change modules of the host stack without importing them, which takes seconds.
"""
import sys
from importlib.abc import MetaPathFinder
from importlib.machinery import ModuleSpec
from types import ModuleType
from typing import Any, Callable, Dict, Optional

Action = Callable[[ModuleType], None]


class _AfterImport(MetaPathFinder):
    """Lets the other finders find the modules that have an action, and runs the action after their code."""

    def __init__(self) -> None:
        self.actions: Dict[str, Action] = {}

    def find_spec(self,
                  fullname: str,
                  path: Any,
                  target: Optional[ModuleType] = None) -> Optional[ModuleSpec]:
        if fullname not in self.actions:
            return None
        # A finder of an old package may lack the method, as in Python's own import.
        others = (finder for finder in sys.meta_path if finder is not self and hasattr(finder, 'find_spec'))
        specs = (finder.find_spec(fullname, path, target) for finder in others)
        spec = next((spec for spec in specs if spec is not None), None)
        if spec is not None and spec.loader is not None:
            run_code = spec.loader.exec_module

            def exec_module(module: ModuleType) -> None:
                run_code(module)
                self.actions.pop(fullname, _do_nothing)(module)

            setattr(spec.loader, 'exec_module', exec_module)
        return spec


def _do_nothing(module: ModuleType) -> None:
    pass


_AFTER_IMPORT = _AfterImport()


def after_import(name: str, action: Action) -> None:
    """Call ``action(module)`` after the first import of a module, or now if it is imported already.

    Args:
        name: Full name of the module, at most one action for each.
        action: If the import fails, it is not called, and waits for the next one.
    """
    if _AFTER_IMPORT not in sys.meta_path:
        sys.meta_path.insert(0, _AFTER_IMPORT)
    module = sys.modules.get(name)
    if module is not None:
        action(module)
    else:
        _AFTER_IMPORT.actions[name] = action
