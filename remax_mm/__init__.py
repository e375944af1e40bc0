"""ReMaX, kMaX-DeepLab and their relatives as an MMDetection 3.x plugin.

Importing the package registers its modules into MMDetection's registries; a config does so with
``custom_imports = dict(imports=['remax_mm'], allow_failed_imports=False)``.
"""
from .compat import prepare_host_stack

# The host packages can only be imported after this call, so the registered modules come below it.
prepare_host_stack()

from . import datasets, engine, evaluation, models, visualization  # noqa: E402, F401
from .model_names import list_models  # noqa: E402
from .version import __version__  # noqa: E402

__all__ = ['__version__', 'list_models']
