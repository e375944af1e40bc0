#!/usr/bin/env python
"""Turn a TensorFlow checkpoint of kMaX-DeepLab (google-research/deeplab2) into one of ours.

    python tools/model_converters/deeplab2_to_remax_mm.py kmax_max-s/ckpt-150000 checkpoints/kmax_max-s.pth

What can be read: a checkpoint, named without its `.index`, where TensorFlow is installed; elsewhere a `.npz`
that was written where it is:

    import numpy, tensorflow
    reader = tensorflow.train.load_checkpoint('kmax_max-s/ckpt-150000')
    numpy.savez('max-s.npz', **{key: reader.get_tensor(key) for key in reader.get_variable_to_shape_map()})

ResNet-50, MaX-S and ConvNeXt on COCO, ADE20K and Cityscapes are known. TensorFlow's ResNet-50 is another
network than the usual one and comes as `DeepLab2ResNet`. The auxiliary semantic head, which only the training
has, takes the features of strides 4 and 8 activated in TensorFlow, and as they are here.

Class outputs are put into the order of our datasets.
"""
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
import torch
from converted_checkpoint import fit_weights, run_converter, save_checkpoint
from deeplab2_names import CONVNEXT, NOT_WEIGHTS, Converted, convert_variables
from kmax_to_remax_mm import CONFIGS
from kmax_to_remax_mm import default_config as convnext_config
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import nn


def read_variables(path: Path) -> Dict[str, np.ndarray]:
    """Read the weights of a checkpoint of TensorFlow, or of a `.npz` made of one; runs no code that it holds.

    Args:
        path: a `.npz`, or what `tf.train.load_checkpoint` takes, but a file.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged, holds something else than numbers, or TensorFlow is missing.
    """
    index = path.with_name(f'{path.name}.index')
    is_archive = path.suffix == '.npz'
    if not (path if is_archive else index).is_file():
        raise FileNotFoundError(f'Expected a checkpoint at {path}, but there is no file '
                                f'{path if is_archive else index}')
    try:
        variables = _read_archive(path) if is_archive else _read_checkpoint(path)
    except ModuleNotFoundError as error:
        raise ValueError(f'Expected TensorFlow to read {path}, but {error}: install it (pip install '
                         'tensorflow-cpu), or write a .npz where it is, as --help shows')
    # What a damaged file raises depends on where it was cut.
    except Exception as error:
        reason = str(error).split('\n')[0] or type(error).__name__
        raise ValueError(f'Expected a whole checkpoint at {path}, but it cannot be read: {reason}')

    strange = [name for name, array in variables.items() if array.dtype.kind not in 'fiu']
    if strange:
        raise ValueError(f'Expected nothing but numbers in {path}, but {len(strange)} of {len(variables)} '
                         f'variables are not, such as: {", ".join(strange[:3])}')
    return variables


def _read_archive(path: Path) -> Dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if not NOT_WEIGHTS.search(name)}


def _read_checkpoint(path: Path) -> Dict[str, np.ndarray]:
    import tensorflow  # only those who have such a checkpoint need it

    reader = tensorflow.train.load_checkpoint(str(path))
    names = [name for name in reader.get_variable_to_shape_map() if not NOT_WEIGHTS.search(name)]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def default_config(converted: Converted) -> Config:
    """Config of the model that converted weights are of.

    Raises:
        ValueError: they are of a ConvNeXt of an unknown size.
    """
    if converted.encoder is CONVNEXT:
        return convnext_config(converted.weights, converted.dataset)
    config = Config.fromfile(CONFIGS / converted.dataset.config)
    stem, *stages = converted.encoder.channels
    head = config.model.panoptic_head
    with_stem = len(head.in_channels) > len(stages)
    config.model.backbone = dict(type=converted.encoder.backbone, with_stem=with_stem)
    head.in_channels = [stem, *stages] if with_stem else stages
    return config


def build_model(config: Config, converted: Converted) -> nn.Module:
    """Model of a config on the meta device.

    Raises:
        ValueError: the config has none, or another backbone than the weights.
    """
    if 'model' not in config:
        raise ValueError(f'Expected `model` in the config {config.filename}, but it has none')
    # Names and shapes alone would not tell TensorFlow's ResNet-50 from the usual one.
    wanted, found = converted.encoder.backbone, config.model.get('backbone', {}).get('type')
    if found != wanted:
        raise ValueError(f"Expected the backbone {wanted}, which is deeplab2's {converted.encoder.name}, but "
                         f'the config {config.filename} has {found}')
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(config.model)


def convert_file(source: Path, target: Path, config: Optional[Config] = None) -> Dict[str, Any]:
    """Convert a checkpoint of deeplab2 and write it for mmengine; returns what was written.

    Args:
        source: as of :func:`read_variables`.
        config: of the model that the weights are for; None for deeplab2's own.

    Raises:
        FileNotFoundError: there is no checkpoint.
        ValueError: it cannot be read, or its weights do not fit; nothing is written.
    """
    converted = convert_variables(read_variables(source))
    model = build_model(default_config(converted) if config is None else config, converted)
    state_dict = fit_weights(converted.weights, model, str(source))
    return save_checkpoint(target, state_dict, converted.dataset, source, config)


def main() -> None:
    run_converter(convert_file, __doc__, 'checkpoint without its .index, or a .npz of one')


if __name__ == '__main__':
    main()
