#!/usr/bin/env python
"""Turn a checkpoint of the public PyTorch code of kMaX-DeepLab (bytedance/kmax-deeplab) into one of ours.

    python tools/model_converters/kmax_to_remax_mm.py kmax_r50.pth checkpoints/kmax_r50.pth

What can be read: a torch file, or Detectron2's `.pkl` of numpy arrays; the weights stand under `model` or are
the whole file. Batch norms may lack `num_batches_tracked`, as in files that the release's script
convert-tf-weights-to-d2.py made of TensorFlow's checkpoints. TensorFlow's ResNet-50 is another network than
the release's and ours: it has no max-pool, and the pixel decoder takes its features before their activation.

Class outputs are put into the order of the datasets here. On Cityscapes the release's ResNet-50 is that of
configs/kmax/kmax_r50-os4_8xb4-60k_cityscapes-1025x2049.py, TensorFlow's has the pixel decoder of
configs/kmax/kmax_r50_8xb4-60k_cityscapes-1025x2049.py.
"""
import codecs
import pickle
import re
import warnings
from collections import OrderedDict
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Tuple

import numpy as np
import torch
from converted_checkpoint import fit_weights, list_names, run_converter, save_checkpoint
from kmax_release import ReleaseDataset, convert_weights
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor

from remax_mm.models.backbones.convnext import ARCHITECTURES, ConvNeXtSpec

CONFIGS = Path(__file__).resolve().parents[2] / 'configs'


class _ArrayUnpickler(pickle.Unpickler):
    """Reads pickled dicts of numpy arrays and can make nothing else."""

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
            raise pickle.UnpicklingError(f'it holds a `{module}.{name}`, and only numpy arrays are read')
        return allowed[module, name]


def read_release(path: Path) -> Dict[str, Tensor]:
    """Read the weights of a checkpoint file; runs no code that may stand in it.

    Raises:
        FileNotFoundError: there is no such file.
        ValueError: it is damaged or holds something else than weights by name.
    """
    if not path.is_file():
        raise FileNotFoundError(f'Expected a checkpoint at {path}, but there is no such file')
    try:
        if path.suffix == '.pkl':
            with path.open('rb') as file:
                checkpoint = _ArrayUnpickler(file, encoding='latin1').load()
        else:
            checkpoint = torch.load(path, map_location='cpu', weights_only=True)
    # What a damaged file raises depends on where it was cut.
    except Exception as error:
        reason = str(error).split('\n')[0] or type(error).__name__
        raise ValueError(f'Expected a whole checkpoint of weights at {path}, but it cannot be read: {reason}')

    weights = checkpoint.get('model', checkpoint) if isinstance(checkpoint, dict) else checkpoint
    if not isinstance(weights, dict) or not weights:
        raise ValueError(f'Expected weights by name, at the top or under `model`, in {path}')
    weights = {name: _tensor(value) for name, value in weights.items()}
    strange = [str(name) for name, value in weights.items() if not isinstance(value, Tensor)]
    if strange:
        raise ValueError(f'Expected nothing but weights in {path}, but {len(strange)} of {len(weights)} '
                         f'entries are not{list_names(strange)}')
    return weights


def _tensor(value: Any) -> Any:
    numbers = isinstance(value, np.ndarray) and value.dtype.kind in 'fi' and value.dtype.isnative
    return torch.from_numpy(np.array(value)) if numbers else value


def default_config(weights: Mapping[str, Tensor], dataset: ReleaseDataset) -> Config:
    """Config of the model that weights of the release, by our names, are from.

    Raises:
        ValueError: there is none for the backbone.
    """
    config = Config.fromfile(CONFIGS / dataset.config)

    if any(name.startswith('backbone.stages.') for name in weights):
        arch, channels = _convnext_of(weights)
        head = config.model.panoptic_head
        with_stem = len(head.in_channels) > len(channels)
        config.model.backbone = dict(type='KMaXConvNeXt', arch=arch, with_stem=with_stem)
        head.in_channels = [channels[0], *channels] if with_stem else list(channels)
    elif not any(name.startswith('backbone.layer1.') for name in weights):
        raise ValueError(
            'Expected a ResNet-50 or a ConvNeXt; for another backbone name its config with --config')
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


def convert_file(source: Path, target: Path, config: Optional[Config] = None) -> Dict[str, Any]:
    """Convert a checkpoint file of the release and write it for mmengine; returns what was written.

    Args:
        config: of the model that the weights are for; None for that of the release.

    Raises:
        ValueError: the file is damaged, or its weights do not fit; nothing is written.
    """
    weights, dataset = convert_weights(read_release(source))
    if 'backbone.bn1.weight' in weights and 'backbone.bn1.num_batches_tracked' not in weights:
        warnings.warn(
            f'{source} seems to come from TensorFlow, whose ResNet-50 has no max-pool and gives its '
            'features before their activation: train on, the outputs are not those of the original.')
    chosen = default_config(weights, dataset) if config is None else config
    if 'model' not in chosen:
        raise ValueError(f'Expected `model` in the config {chosen.filename}, but it has none')
    init_default_scope('mmdet')
    with torch.device('meta'):
        model = MODELS.build(chosen.model)
    state_dict = fit_weights(weights, model, str(source))
    return save_checkpoint(target, state_dict, dataset, source, config)


def main() -> None:
    run_converter(convert_file, __doc__, 'checkpoint of the release, .pth or .pkl')


if __name__ == '__main__':
    main()
