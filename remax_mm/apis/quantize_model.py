"""Quantization of an exported model with images of a dataset."""
from pathlib import Path
from typing import List, Optional, Sequence, Tuple, Union

import numpy as np
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.registry import init_default_scope

from remax_mm.deploy.quantize_onnx import Quantization, quantize_onnx
from .run_config import dataset_config, load_config


def quantize_model(config: Union[str, Path, Config],
                   file: Union[str, Path],
                   out: Union[str, Path],
                   *,
                   num_images: int = 32,
                   num_compared: int = 16,
                   split: str = 'train',
                   keep_float: Sequence[str] = (),
                   search_above: Optional[float] = None,
                   cfg_options: Optional[dict] = None) -> Quantization:
    """Quantize an exported model with images of the dataset of a config.

    Args:
        config: config file, or a loaded config.
        file, out, keep_float, search_above: see :func:`quantize_onnx`.
        num_images: number of images for the calibration, spread over the dataset.
        num_compared: number of other images for the comparison with float32.
        split: ``train``, ``val`` or ``test``.

    Raises:
        FileNotFoundError: the config, the model or the data does not exist.
        ImportError: the extra ``onnx`` is not installed.
        ValueError: the dataset has too few images, or the model cannot be quantized.
    """
    config = load_config(config, cfg_options)
    calibration, compared = dataset_images(config, split, num_images, num_compared)
    return quantize_onnx(file, out, calibration, compared, keep_float=keep_float, search_above=search_above)


def dataset_images(config: Config, split: str, *counts: int) -> Tuple[List[str], ...]:
    """Disjoint lists of image files, each spread over the dataset.

    Raises:
        ValueError: the dataset has fewer images.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(dict(dataset_config(config, split), pipeline=[]))
    if len(dataset) < sum(counts):
        raise ValueError(
            f'Expected at least {sum(counts)} images in the {split} set, but it has {len(dataset)}')
    chosen = np.linspace(0, len(dataset) - 1, sum(counts)).round().astype(int)
    # The first list takes every k-th image of the chosen ones, so that both spread over the dataset.
    second = set(np.linspace(0,
                             len(chosen) -
                             1, counts[-1]).round().astype(int).tolist()) if counts[1:] else set()
    paths = [dataset.get_data_info(int(index))['img_path'] for index in chosen]
    first_paths = [path for number, path in enumerate(paths) if number not in second]
    return first_paths, [paths[number] for number in sorted(second)]
