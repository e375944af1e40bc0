"""ReMaX, kMaX-DeepLab and their relatives as an MMDetection 3.x plugin.

After the import of the package, MMDetection's registries find its modules; a config imports it with
``custom_imports = dict(imports=['remax_mm'], allow_failed_imports=False)``. The modules, and with them torch
and MMDetection, are imported when they are looked up or used.
"""
from importlib import import_module
from types import ModuleType

from .compat import prepare_host_stack
from .model_names import list_models
from .version import __version__

prepare_host_stack()

_PACKAGES = ('apis', 'datasets', 'engine', 'evaluation', 'models', 'panoptic_format', 'structures',
             'visualization')

__all__ = ['__version__', 'list_models']


def __getattr__(name: str) -> ModuleType:
    """Import a package at its first use, such as ``remax_mm.models``."""
    if name in _PACKAGES:
        return import_module(f'{__name__}.{name}')
    raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
