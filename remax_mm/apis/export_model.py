"""Export of a config and a checkpoint to ONNX, checked against PyTorch."""
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config

from remax_mm.datasets.mini_drawing import draw_scene
from remax_mm.deploy.check_onnx import MIN_EQUAL, MIN_EQUAL_FLOAT16, Agreement, check_onnx
from remax_mm.deploy.deployable_folder import write_runtime
from remax_mm.deploy.export_onnx import DEFAULT_OPSET, ResizeStep, export_onnx
from remax_mm.deploy.remax_runtime import load_image
from .panoptic_inferencer import PanopticInferencer
from .run_config import load_config, loads_annotation

CHECK_SIDES = (150, 320, 480)
"""Sides in pixels of the images that are drawn to check an export."""


def export_model(config: Union[str, Path, Config],
                 checkpoint: str,
                 out: Union[str, Path],
                 *,
                 size: Optional[Tuple[int, int]] = None,
                 logits: bool = False,
                 dtype: str = 'fp32',
                 opset: int = DEFAULT_OPSET,
                 check_images: Sequence[Union[str, Path]] = (),
                 cfg_options: Optional[dict] = None) -> Tuple[Path, List[Agreement]]:
    """Export a model; nothing is written if it disagrees with PyTorch.

    Args:
        config: config file, or a loaded config.
        checkpoint: file or URL.
        out: ONNX file, or a folder, which gets a program that runs the model too.
        size: (height, width) of the network input. None takes that of the config.
        logits: whether the graph ends with class and mask logits.
        dtype: ``fp32`` or ``fp16``.
        opset: version of the ONNX operators.
        check_images: images on which the result is compared with PyTorch, besides drawn ones.
        cfg_options: overrides of the config, by dotted keys.

    Returns:
        The ONNX file, and how well it agrees with PyTorch on each image.

    Raises:
        FileNotFoundError: the config, the checkpoint or an image does not exist.
        ImportError: the extra ``onnx`` is not installed.
        ValueError: the checkpoint does not fill the model, the model cannot be exported, or the result
            disagrees with PyTorch.
    """
    config = load_config(config, cfg_options)
    images = [load_image(path) for path in check_images] + draw_images()
    resize, input_size = input_of(config, size)
    if size is not None and config.model.data_preprocessor.type.endswith('PanopticDataPreprocessor'):
        config = config.copy()
        config.model.data_preprocessor.pad_size = size
    inferencer = PanopticInferencer(config, checkpoint, device='cpu')
    meta = inferencer.dataset_meta

    out = Path(out)
    is_folder = out.suffix != '.onnx'
    file = out / 'model.onnx' if is_folder else out
    partial = file.with_name(f'.{file.name}.partial')
    try:
        metadata = export_onnx(
            inferencer.model,
            partial,
            classes=meta['classes'],
            num_things=len(meta['thing_classes']),
            palette=meta.get('palette') if isinstance(meta.get('palette'), (list, tuple)) else None,
            resize=resize,
            input_size=input_size,
            logits=logits,
            dtype=dtype,
            opset=opset)
        agreements = check_onnx(inferencer.model, partial, images,
                                MIN_EQUAL if dtype == 'fp32' else MIN_EQUAL_FLOAT16)
        partial.replace(file)
    finally:
        partial.unlink(missing_ok=True)
    if is_folder and not logits:
        write_runtime(out, metadata)
    return file, agreements


def input_of(config: Config, size: Optional[Tuple[int, int]]) -> Tuple[ResizeStep, Tuple[int, int]]:
    """How the test pipeline of a config resizes images, and the (height, width) of the network input.

    Args:
        size: (height, width) that replaces that of the config.

    Raises:
        ValueError: the pipeline has other steps, or the config has no fixed size and none is given.
    """
    steps = [step for step in get_test_pipeline_cfg(config) if not loads_annotation(step)]
    names = [str(step['type']).rsplit('.', 1)[-1] for step in steps]
    resize = steps[1] if len(steps) == 3 else {}
    is_known = names[1:2] == ['Resize'] and names[0].startswith('Load') and names[2].startswith('Pack')
    if not is_known or resize.get('interpolation', 'bilinear') != 'bilinear' or 'scale' not in resize:
        raise ValueError('Expected a test pipeline that loads, resizes bilinearly to a `scale` and packs '
                         f'images, but got the steps {names}')
    keep_ratio = resize.get('keep_ratio', False)
    if size is not None:
        return ResizeStep((size[1], size[0]), keep_ratio), size
    pad_size = config.model.data_preprocessor.get('pad_size')
    if pad_size is None:
        raise ValueError(f'Expected --size, because {config.filename} pads images to different sizes')
    sides = (pad_size, pad_size) if isinstance(pad_size, int) else (pad_size[0], pad_size[1])
    return ResizeStep((resize['scale'][0], resize['scale'][1]), keep_ratio), sides


def draw_images() -> List[np.ndarray]:
    """Drawn scenes of different sizes and shapes, (H, W, 3) uint8 RGB."""
    rng = np.random.default_rng(0)
    scenes = [draw_scene(rng, side).image for side in CHECK_SIDES]
    return [
        np.ascontiguousarray(image[:side - side // divisor])
        for image, side, divisor in zip(scenes, CHECK_SIDES, (100, 4, 3))
    ]
