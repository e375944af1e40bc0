"""Use of trained models from Python, configs of runs, and what the command-line tools share."""
from importlib import import_module
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .evaluation_config import use_tiles, use_tta
    from .input_images import list_images
    from .panoptic_inferencer import FailedImagesError, PanopticInferencer
    from .panoptic_result import PanopticResult, keep_segments, save_overlay, save_segments
    from .run_config import find_training, load_config

_MODULE_OF = dict(
    FailedImagesError='panoptic_inferencer',
    PanopticInferencer='panoptic_inferencer',
    PanopticResult='panoptic_result',
    keep_segments='panoptic_result',
    list_images='input_images',
    save_overlay='panoptic_result',
    save_segments='panoptic_result',
    find_training='run_config',
    load_config='run_config',
    use_tiles='evaluation_config',
    use_tta='evaluation_config')

__all__ = [
    'FailedImagesError', 'PanopticInferencer', 'PanopticResult', 'keep_segments', 'list_images',
    'save_overlay', 'save_segments', 'find_training', 'load_config', 'use_tiles', 'use_tta'
]


def __getattr__(name: str) -> Any:
    """Import a public name at its first use, so that the parsers of the tools do not wait for torch."""
    if name not in _MODULE_OF:
        raise AttributeError(f'module {__name__!r} has no attribute {name!r}')
    return getattr(import_module(f'{__name__}.{_MODULE_OF[name]}'), name)
