"""Published models: one file with inference weights, config and classes. Loading it runs no code."""
import hashlib
import io
import json
import os
from pathlib import Path
from typing import Any, Dict, Mapping, NamedTuple, Optional, Tuple, Union

import torch
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.dataset import Compose
from mmengine.model import BaseModel
from mmengine.registry import DefaultScope
from mmengine.runner import CheckpointLoader
from torch import Tensor, nn

from remax_mm.engine import check_weights, read_weights
from remax_mm.engine.hooks.check_classes_hook import check_class_counts
from remax_mm.engine.hooks.check_weights_hook import unwrap
from remax_mm.models.inference_copy import inference_copy
from .onnx_config import deployed_config, is_deployed
from .published_config import decode_config, encode_config
from .run_config import load_config

HUB_FILE = 'model.safetensors'
"""Name of the file in a folder of ``save_pretrained`` and in a repository of the hub."""

SUFFIXES = ('.safetensors', '.pth')

_KEY, _CHECKSUM = 'remax_mm', 'sha256'  # in the metadata of safetensors, and in `meta` of a .pth file
_MAX_JSON_BYTES = 2**20


class PublishedModel(NamedTuple):
    """Content of a published model.

    Attributes:
        path: The file.
        config: The model and its test pipeline.
        dataset_meta: ``classes``, ``thing_classes``, ``stuff_classes``, and ``palette`` if it has one.
        weights: Weights that inference uses, by name, on the CPU.
    """
    path: str
    config: Config
    dataset_meta: Dict[str, Any]
    weights: Mapping[str, Tensor]


def is_published(path: Union[str, Path]) -> bool:
    """Whether a path is that of a published model: by its suffix, or a folder with ``model.safetensors``."""
    return Path(path).suffix in SUFFIXES or (Path(path) / HUB_FILE).is_file()


def write_published(model: nn.Module,
                    config: Config,
                    dataset_meta: Mapping[str, Any],
                    path: Path,
                    hash_in_name: bool = False) -> Path:
    """Write a model, without its training-only parts.

    Args:
        model: The model of the config.
        config: Config with the model and its test pipeline.
        dataset_meta: Its classes.
        path: File ending in ``.safetensors`` or ``.pth``; its folder is created.
        hash_in_name: Whether to add the first 8 digits of the SHA-256 of the file to its name, as mmdet does.

    Returns:
        The file.

    Raises:
        ValueError: another suffix, or the config cannot be published, see :func:`encode_config`.
    """
    text = json.dumps(encode_config(config, dataset_meta), allow_nan=False)
    state = inference_copy(unwrap(model)).state_dict()
    weights = {
        name: value.cpu().clone(memory_format=torch.contiguous_format)
        for name, value in state.items() if not name.endswith('num_batches_tracked')
    }
    content = _to_bytes(weights, text, dataset_meta, path)
    if hash_in_name:
        path = path.with_name(f'{path.stem}-{hashlib.sha256(content).hexdigest()[:8]}{path.suffix}')
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_name(f'.{path.name}.tmp')
    unfinished.write_bytes(content)
    os.replace(unfinished, path)
    return path


def read_published(path: Union[str, Path]) -> PublishedModel:
    """Read and check a published model, of any origin.

    The model is built without memory first, so a config cannot ask for more than the weights in the file.

    Args:
        path: The file, or a folder with ``model.safetensors``.

    Raises:
        FileNotFoundError: there is no such file.
        ImportError: safetensors is not installed.
        ValueError: the file is damaged, is not a published model, or its config, weights and classes do not
            fit each other.
    """
    path = Path(path) / HUB_FILE if Path(path).is_dir() else Path(path)
    if not path.is_file():
        raise FileNotFoundError(f'Expected a published model at {path}, but there is none.')
    text, weights = _read_safetensors(path) if path.suffix == '.safetensors' else _read_pth(path)
    if len(text) > _MAX_JSON_BYTES:
        raise ValueError(f'Expected a config of at most {_MAX_JSON_BYTES} bytes in {path}, but it is larger')
    try:
        data = json.loads(text)
    except (ValueError, RecursionError) as error:
        raise ValueError(
            f'Expected the config in {path} to be JSON, but it cannot be read: {error}') from error

    config, dataset_meta = decode_config(data, str(path))
    try:
        with torch.device('meta'), DefaultScope.overwrite_default_scope('mmdet'):
            model = MODELS.build(config.model)
            Compose(config.test_dataloader.dataset.pipeline)
    except Exception as error:  # any error of the constructors of its parts
        raise ValueError(f'Expected the config in {path} to describe a model, but it cannot be built: '
                         f'{error}') from error
    if not isinstance(model, BaseModel):
        raise ValueError(
            f'Expected the config in {path} to describe a detector, but got {type(model).__name__}')
    check_weights(model, weights, str(path))
    check_class_counts(model, dataset_meta, str(path))
    return PublishedModel(str(path), config, dataset_meta, weights)


def read_config(model: Union[str, Path], cfg_options: Optional[dict] = None) -> Config:
    """The config of a published or exported model, or of a model by name or config file.

    Args:
        model: File, folder or name.
        cfg_options: Overrides by dotted keys.

    Raises:
        FileNotFoundError, ImportError, ValueError: see :func:`read_published`, :func:`deployed_config` and
            :func:`load_config`.
    """
    if is_deployed(model):
        return load_config(deployed_config(model), cfg_options)
    return load_config(read_published(model).config if is_published(model) else model, cfg_options)


def download_model(repository: str, revision: Optional[str] = None) -> Path:
    """Download ``model.safetensors`` of a repository of the Hugging Face Hub, or find it in the local cache.

    Raises:
        ImportError: huggingface_hub is not installed.
        FileNotFoundError: there is no such repository, revision or file.
    """
    try:
        from huggingface_hub import hf_hub_download
        from huggingface_hub.errors import EntryNotFoundError, HFValidationError, RepositoryNotFoundError
    except ImportError as error:
        raise ImportError(
            f"There is no folder {repository}, and to look for it on the Hugging Face Hub needs "
            "`pip install 'remax_mm[hub]'`") from error
    try:
        return Path(hf_hub_download(repository, HUB_FILE, revision=revision))
    except (EntryNotFoundError, HFValidationError, RepositoryNotFoundError) as error:
        raise FileNotFoundError(
            f'Expected a folder {repository}, or a repository of the Hugging Face Hub with '
            f'{HUB_FILE}, but there is neither: {error}') from error


def _to_bytes(weights: Mapping[str, Tensor], text: str, dataset_meta: Mapping[str, Any], path: Path) -> bytes:
    if path.suffix == '.safetensors':
        metadata = {'format': 'pt', _KEY: text, _CHECKSUM: _checksum(weights, text)}
        return _safetensors(path).torch.save(dict(weights), metadata)
    if path.suffix != '.pth':
        raise ValueError(f'Expected a file name that ends in {" or ".join(SUFFIXES)}, but got {path}')
    content = io.BytesIO()
    # `dataset_meta` is where the tools of mmdet look for the classes of a checkpoint.
    torch.save(dict(state_dict=dict(weights), meta={_KEY: text, 'dataset_meta': dict(dataset_meta)}), content)
    return content.getvalue()


def _read_safetensors(path: Path) -> Tuple[str, Mapping[str, Tensor]]:
    safetensors = _safetensors(path)
    try:
        with safetensors.safe_open(str(path), framework='pt') as file:
            metadata = file.metadata() or {}
            weights = {name: file.get_tensor(name) for name in file.keys()}
    except safetensors.SafetensorError as error:
        raise ValueError(f'Expected a safetensors file at {path}, but it cannot be read: {error}') from error
    if _KEY not in metadata:
        raise ValueError(f'Expected a model of tools/misc/publish.py at {path}, but it has no config inside')
    if metadata.get(_CHECKSUM) != _checksum(weights, metadata[_KEY]):
        raise ValueError(f'Expected intact weights in {path}, but their checksum is wrong')
    return metadata[_KEY], weights


def _read_pth(path: Path) -> Tuple[str, Mapping[str, Tensor]]:
    saved = CheckpointLoader.load_checkpoint(str(path), map_location='cpu')
    weights = read_weights(saved, str(path))
    meta = saved.get('meta') if isinstance(saved, dict) else None
    text = meta.get(_KEY) if isinstance(meta, dict) else None
    if not isinstance(text, str):
        raise ValueError(
            f'Expected a model of tools/misc/publish.py at {path}, but it has no config inside; for '
            'other checkpoints, give the config and the checkpoint')
    return text, weights


def _checksum(weights: Mapping[str, Tensor], text: str) -> str:
    """SHA-256 of the config and all weights; safetensors has no checksums of its own."""
    digest = hashlib.sha256(text.encode())
    for name in sorted(weights):
        value = weights[name]
        digest.update(f'{name} {value.dtype} {tuple(value.shape)}'.encode())
        digest.update(value.contiguous().flatten().view(torch.uint8).numpy().data)
    return digest.hexdigest()


def _safetensors(path: Path) -> Any:
    try:
        import safetensors.torch
    except ImportError as error:
        raise ImportError(f"{path} needs safetensors: `pip install 'remax_mm[hub]'`, or use .pth") from error
    return safetensors
