"""Use of trained models from Python, configs of runs, and what the command-line tools share."""
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .panoptic_inferencer import (FailedImagesError, PanopticInferencer, PanopticResult, list_images,
                                      save_result)
    from .run_config import load_config, use_tiles, use_tta

__all__ = [
    'FailedImagesError', 'PanopticInferencer', 'PanopticResult', 'list_images', 'save_result', 'load_config',
    'use_tiles', 'use_tta'
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that the parsers of the tools do not wait for torch."""
    if name not in __all__:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    module = 'run_config' if name in ('load_config', 'use_tiles', 'use_tta') else 'panoptic_inferencer'
    return getattr(import_module(f'{__name__}.{module}'), name)
