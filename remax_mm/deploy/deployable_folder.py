"""A folder that runs a model without remax_mm and without torch."""
import shutil
from pathlib import Path
from typing import Any, Dict

from . import remax_runtime

README = """# Panoptic segmentation model

`model.onnx` and a program that runs it. It needs Python 3.10 or newer and these packages only:

```bash
pip install numpy Pillow onnxruntime
python remax_runtime.py photo.jpg --out-dir out
```

This writes `photo_panoptic.png` (segment ids, COCO: R + 256 G + 256^2 B), `photo_overlay.png` and
`photo.json` (the segments). From Python:

```python
from remax_runtime import PanopticModel

result = PanopticModel('model.onnx')('photo.jpg')
result.segment_map    # (H, W) int32, 0 is void
result.segments_info  # id, label, class_name, is_thing, score, area and bbox of each segment
```

The model has {num_classes} classes ({num_things} things). The program resizes images to fit into {height} x
{width} pixels (height, width). Written by remax_mm {version}.
"""


def write_runtime(folder: Path, metadata: Dict[str, Any]) -> None:
    """Write the program and the README beside ``model.onnx``."""
    shutil.copyfile(remax_runtime.__file__, folder / 'remax_runtime.py')
    text = README.format(
        num_classes=len(metadata['classes']),
        num_things=metadata['num_things'],
        height=metadata['input']['height'],
        width=metadata['input']['width'],
        version=metadata['version'])
    (folder / 'README.md').write_text(text, encoding='utf-8')
