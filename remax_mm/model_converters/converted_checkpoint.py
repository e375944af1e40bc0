"""Converted weights: the check that they fit a model, and the checkpoint file."""
import os
from pathlib import Path
from typing import Any, Dict, Mapping, Optional, Sequence

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from torch import Tensor, nn

from remax_mm.models.inference_copy import inference_copy
from remax_mm.version import __version__
from .kmax_release import SEMANTIC_HEAD, ReleaseDataset


def build_meta_model(config: Config) -> nn.Module:
    """Model of a config on the meta device.

    Raises:
        ValueError: the config has no model.
    """
    if 'model' not in config:
        raise ValueError(f'Expected `model` in the config {config.filename}, but it has none')
    init_default_scope('mmdet')
    with torch.device('meta'):
        return MODELS.build(config.model)


def fit_weights(weights: Mapping[str, Tensor], model: nn.Module, source: str) -> Dict[str, Tensor]:
    """Check that weights fill the inference part of a model exactly.

    Args:
        weights: Weights by our names.
        model: The model, which may be on the meta device; unchanged.
        source: Origin of the weights, for the message.

    Returns:
        Weights of the model's inference part and, if the model and the weights both have one, of its
        auxiliary semantic head, in the order of the model. A missing ``num_batches_tracked`` is 0.

    Raises:
        ValueError: weights are missing, unexpected or have another shape; the message lists them.
    """
    inference = inference_copy(model).state_dict()
    with_semantic_head = any(name.startswith(SEMANTIC_HEAD) for name in weights)
    wanted = {
        name: value
        for name, value in model.state_dict().items()
        if name in inference or (with_semantic_head and name.startswith(SEMANTIC_HEAD))
    }
    has_semantic_head = any(name.startswith(SEMANTIC_HEAD) for name in wanted)

    missing = [name for name in wanted if name not in weights and not name.endswith('num_batches_tracked')]
    unexpected = [
        name for name in weights
        if name not in wanted and (has_semantic_head or not name.startswith(SEMANTIC_HEAD))
    ]
    misshapen = [
        f'{name} {tuple(weights[name].shape)} instead of {tuple(value.shape)}'
        for name, value in wanted.items() if name in weights and weights[name].shape != value.shape
    ]
    if missing or unexpected or misshapen:
        raise ValueError(f'Expected the weights in {source} to fit the model, but '
                         f'{len(missing)} are missing{list_names(missing)}; '
                         f'{len(unexpected)} are unexpected{list_names(unexpected)}; '
                         f'{len(misshapen)} have another shape{list_names(misshapen)}')
    return {name: weights.get(name, torch.zeros((), dtype=torch.int64)) for name in wanted}


def list_names(names: Sequence[str], most: int = 10) -> str:
    """At most ``most`` names, one per line, for the end of a message."""
    lines = [*names[:most], *(['...'] if len(names) > most else [])]
    return ':\n  ' + '\n  '.join(lines) if lines else ''


def save_checkpoint(target: Path, state_dict: Mapping[str, Tensor], dataset: ReleaseDataset, source: Path,
                    config: Optional[Config]) -> Dict[str, Any]:
    """Write a checkpoint for mmengine and return its content; an error leaves no partial file.

    Args:
        target: File to write.
        state_dict: Weights by our names.
        dataset: Dataset of the class outputs.
        source: Original checkpoint; its name is stored in the new one.
        config: Config of the user; its text is stored in the new checkpoint.
    """
    meta = dict(dataset_meta=dict(dataset.metainfo), source=source.name, remax_mm_version=__version__)
    if config is not None:
        meta['cfg'] = config.pretty_text
    checkpoint = dict(meta=meta, state_dict=state_dict)
    target.parent.mkdir(parents=True, exist_ok=True)
    # Renamed when it is complete, so that a full disk leaves no partial file.
    unfinished = target.with_name(f'{target.name}.{os.getpid()}')
    try:
        torch.save(checkpoint, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return checkpoint
