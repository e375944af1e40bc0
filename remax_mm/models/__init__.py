from . import (backbones, data_preprocessors, detectors, heads, losses, pixel_decoders, relaxations,  # noqa: F401
               task_modules, transformer_decoders)
