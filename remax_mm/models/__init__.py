# The import registers the modules.
from . import (backbones, data_preprocessors, detectors, heads, losses, pixel_decoders, relaxations,
               task_modules, transformer_decoders)

__all__ = [
    'backbones', 'data_preprocessors', 'detectors', 'heads', 'losses', 'pixel_decoders', 'relaxations',
    'task_modules', 'transformer_decoders'
]
