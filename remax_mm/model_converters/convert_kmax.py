"""Conversion of checkpoints of the public PyTorch code of kMaX-DeepLab (bytedance/kmax-deeplab)."""
import codecs
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
import torch
from mmengine.config import Config
from torch import Tensor

from remax_mm.models.backbones.convnext import ARCHITECTURES, ConvNeXtSpec
from .converted_checkpoint import build_meta_model, fit_weights, list_names, save_checkpoint
from .kmax_release import ReleaseDataset, convert_weights


def convert_kmax(source: Path,
                 target: Path,
                 configs: Path,
                 config: Optional[Config] = None) -> Dict[str, Any]:
    """Convert a checkpoint file of the release to one for mmengine, and return its content.

    Args:
        source: File of torch, or a ``.pkl`` of numpy arrays from Detectron2.
        target: File to write.
        configs: Folder ``configs`` of this project.
        config: Config of the model that the weights must fit. None takes the model of the release.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: the file is damaged, or its weights do not fit; nothing is written.
    """
    weights, dataset = convert_weights(read_release(source))
    if 'backbone.bn1.weight' in weights and 'backbone.bn1.num_batches_tracked' not in weights:
        warnings.warn(
            f'{source} seems to come from TensorFlow, whose ResNet-50 has no max-pool and gives its '
            'features before their activation: train it further, its outputs are not those of the original.')
    model = build_meta_model(default_config(weights, dataset, configs) if config is None else config)
    state_dict = fit_weights(weights, model, str(source))
    return save_checkpoint(target, state_dict, dataset, source, config)


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled dicts of numpy arrays and no other objects."""

    def find_class(self, module: str, name: str) -> Any:
        core = np._core if hasattr(np, '_core') else np.core  # numpy 2 | numpy 1
        allowed = {
            ('numpy', 'ndarray'): np.ndarray,
            ('numpy', 'dtype'): np.dtype,
            ('_codecs', 'encode'): codecs.encode,
            ('collections', 'OrderedDict'): OrderedDict,
        }
        for folder in ('numpy.core', 'numpy._core'):
            allowed[f'{folder}.multiarray', '_reconstruct'] = core.multiarray._reconstruct
            allowed[f'{folder}.numeric', '_frombuffer'] = core.numeric._frombuffer
        if (module, name) not in allowed:
            raise pickle.UnpicklingError(f'it contains a `{module}.{name}`, and only numpy arrays are read')
        return allowed[module, name]


def read_release(path: Path) -> Dict[str, Tensor]:
    """Read the weights of a checkpoint file without running code that it may contain.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: it is damaged or contains something other than weights by name.
    """
    if not path.is_file():
        raise FileNotFoundError(f'Expected a checkpoint at {path}, but there is no such file')
    try:
        if path.suffix == '.pkl':
            with path.open('rb') as file:
                checkpoint = _ArrayUnpickler(file, encoding='latin1').load()
        else:
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    # A damaged file raises different errors, depending on where it is cut.
    except Exception as error:
        reason = str(error).split('\n')[0] or type(error).__name__
        raise ValueError(f'Expected a whole checkpoint of weights at {path}, but it cannot be read: {reason}')

    weights = checkpoint.get('model', checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f'Expected weights by name, at the top or under `model`, in {path}')
    weights = {name: _tensor(value) for name, value in weights.items()}
    others = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    if others:
        raise ValueError(f'Expected only weights in {path}, but {len(others)} of {len(weights)} '
                         f'entries are not{list_names(others)}')
    return weights


def _tensor(value: Any) -> Any:
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in 'fi' and value.dtype.isnative
    return torch.from_numpy(np.array(value)) if numbers else value


def default_config(weights: Mapping[str, Tensor], dataset: ReleaseDataset, configs: Path) -> Config:
    """Config of the model of the release.

    Args:
        weights: Weights of the release, by our names.
        dataset: Dataset they were trained on.
        configs: Folder ``configs`` of this project.

    Raises:
        ValueError: the backbone is neither a ResNet-50 nor a known ConvNeXt.
    """
    config = Config.fromfile(configs / dataset.config)

    if any(name.startswith('backbone.stages.') for name in weights):
        arch, channels = _convnext_of(weights)
        head = config.model.panoptic_head
        with_stem = len(head.in_channels) > len(channels)
        config.model.backbone = dict(type='KMaXConvNeXt', arch=arch, with_stem=with_stem)
        head.in_channels = [channels[0], *channels] if with_stem else list(channels)
    elif not any(name.startswith('backbone.layer1.') for name in weights):
        raise ValueError(
            'Expected a ResNet-50 or a ConvNeXt; for another backbone, give its config with --config')
    return config


def _convnext_of(weights: Mapping[str, Tensor]) -> Tuple[str, Tuple[int, ...]]:
    scales = [[
        value for name, value in weights.items() if re.fullmatch(rf'backbone\.stages\.{i}\.\d+\.gamma', name)
    ] for i in range(4)]
    found = ConvNeXtSpec(tuple(map(len, scales)), tuple(len(stage[0]) if stage else 0 for stage in scales))
    for arch, spec in ARCHITECTURES.items():
        if found == spec:
            return arch, spec.channels
    raise ValueError(f'Expected a ConvNeXt of {", ".join(ARCHITECTURES)}, but found stages of '
                     f'{found.depths} blocks and {found.channels} channels')
