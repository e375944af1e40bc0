"""Conversion of TensorFlow checkpoints of kMaX-DeepLab (google-research/deeplab2)."""
from pathlib import Path
from typing import Any, Dict, Optional

import numpy as np
from mmengine.config import Config
from torch import nn

from .convert_kmax import default_config as convnext_config
from .converted_checkpoint import build_meta_model, fit_weights, save_checkpoint
from .deeplab2_names import CONVNEXT, Encoder
from .deeplab2_variables import NOT_WEIGHTS, Converted, convert_variables


def convert_deeplab2(source: Path,
                     target: Path,
                     configs: Path,
                     config: Optional[Config] = None) -> Dict[str, Any]:
    """Convert a checkpoint of deeplab2 to one for mmengine, and return its content.

    Args:
        source: See :func:`read_variables`.
        target: File to write.
        configs: Folder ``configs`` of this project.
        config: Config of the model that the weights must fit. None takes deeplab2's model.

    Raises:
        FileNotFoundError: the checkpoint does not exist.
        ValueError: it cannot be read, or its weights do not fit; nothing is written.
    """
    converted = convert_variables(read_variables(source))
    config_of_model = default_config(converted, configs) if config is None else config
    state_dict = fit_weights(converted.weights, build_model(config_of_model, converted.encoder), str(source))
    return save_checkpoint(target, state_dict, converted.dataset, source, config)


def read_variables(path: Path) -> Dict[str, np.ndarray]:
    """Read the weights of a checkpoint of TensorFlow, or of a ``.npz`` made of one, without running code.

    Args:
        path: A ``.npz``, or a checkpoint without its ``.index``.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is damaged, contains something other than numbers, or TensorFlow is missing.
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
                         'tensorflow-cpu), or write a .npz where it is installed, as --help shows')
    # A damaged file raises different errors, depending on where it is cut.
    except Exception as error:
        reason = str(error).split('\n')[0] or type(error).__name__
        raise ValueError(f'Expected a whole checkpoint at {path}, but it cannot be read: {reason}')

    others = [name for name, array in variables.items() if array.dtype.kind not in 'fiu']
    if others:
        raise ValueError(f'Expected only numbers in {path}, but {len(others)} of {len(variables)} '
                         f'variables are not, such as: {", ".join(others[:3])}')
    return variables


def _read_archive(path: Path) -> Dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as archive:
        return {name: archive[name] for name in archive.files if not NOT_WEIGHTS.search(name)}


def _read_checkpoint(path: Path) -> Dict[str, np.ndarray]:
    import tensorflow  # needed for these checkpoints only

    reader = tensorflow.train.load_checkpoint(str(path))
    names = [name for name in reader.get_variable_to_shape_map() if not NOT_WEIGHTS.search(name)]
    return {name: np.asarray(reader.get_tensor(name)) for name in names}


def default_config(converted: Converted, configs: Path) -> Config:
    """Config of the model of converted weights.

    Args:
        converted: The weights.
        configs: Folder ``configs`` of this project.

    Raises:
        ValueError: the encoder is a ConvNeXt of unknown size.
    """
    if converted.encoder is CONVNEXT:
        return convnext_config(converted.weights, converted.dataset, configs)
    config = Config.fromfile(configs / converted.dataset.config)
    stem, *stages = converted.encoder.channels
    head = config.model.panoptic_head
    with_stem = len(head.in_channels) > len(stages)
    config.model.backbone = dict(type=converted.encoder.backbone, with_stem=with_stem)
    head.in_channels = [stem, *stages] if with_stem else stages
    return config


def build_model(config: Config, encoder: Encoder) -> nn.Module:
    """Model of a config on the meta device.

    Raises:
        ValueError: the config has no model, or another backbone than the weights.
    """
    # Names and shapes do not distinguish TensorFlow's ResNet-50 from the usual one.
    backbone = config.get('model', {}).get('backbone', {}).get('type')
    if 'model' in config and backbone != encoder.backbone:
        raise ValueError(f"Expected the backbone {encoder.backbone}, which is deeplab2's {encoder.name}, but "
                         f'the config {config.filename} has {backbone}')
    return build_meta_model(config)
