"""What the converters of checkpoints share: the fit to a model, the file they write, the command line."""
import argparse
import os
from pathlib import Path
from typing import Any, Callable, Dict, Mapping, Optional, Sequence

import torch
from kmax_release import SEMANTIC_HEAD, ReleaseDataset
from mmengine.config import Config
from torch import Tensor, nn

from remax_mm.models.inference_copy import inference_copy
from remax_mm.version import __version__


def fit_weights(weights: Mapping[str, Tensor], model: nn.Module, source: str) -> Dict[str, Tensor]:
    """Check that weights fill the inference part of a model exactly, and complete what may be missing.

    Args:
        weights: by our names.
        model: may be on the meta device; left as it is.
        source: where the weights come from, for the message.

    Returns:
        Weights of the model's inference part and, if the model and the weights both have one, of its
        auxiliary semantic head, in the order of the model. Counts of batches that are missing are 0.

    Raises:
        ValueError: weights are missing, unexpected or of another shape; the message lists them.
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
    """At most so many names, each on a line of its own, for the end of a message."""
    lines = [*names[:most], *(['...'] if len(names) > most else [])]
    return ':\n  ' + '\n  '.join(lines) if lines else ''


def save_checkpoint(target: Path, state_dict: Mapping[str, Tensor], dataset: ReleaseDataset, source: Path,
                    config: Optional[Config]) -> Dict[str, Any]:
    """Write a checkpoint for mmengine, whole or not at all; returns what was written.

    Args:
        source: checkpoint that it was made of; its name is kept inside.
        config: that the user named, whose text is kept inside too.
    """
    meta = dict(dataset_meta=dict(dataset.metainfo), source=source.name, remax_mm_version=__version__)
    if config is not None:
        meta['cfg'] = config.pretty_text
    checkpoint = dict(meta=meta, state_dict=state_dict)
    target.parent.mkdir(parents=True, exist_ok=True)
    # In one step, so that a full disk leaves no half of a file behind.
    unfinished = target.with_name(f'{target.name}.{os.getpid()}')
    try:
        torch.save(checkpoint, unfinished)
        unfinished.replace(target)
    finally:
        unfinished.unlink(missing_ok=True)
    return checkpoint


def run_converter(convert_file: Callable[[Path, Path, Optional[Config]], Dict[str, Any]], description: str,
                  source: str) -> None:
    """Run a converter by the arguments of the command line.

    Args:
        convert_file: takes the file to read, the one to write and a config, and returns the checkpoint.
        description: of the tool.
        source: what it reads.
    """
    parser = argparse.ArgumentParser(
        description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('source', type=Path, metavar='SRC', help=source)
    parser.add_argument('target', type=Path, metavar='DST', help='checkpoint to write')
    parser.add_argument(
        '--config', type=Path, help='config that the checkpoint must fit; its text is kept inside')
    parser.add_argument('--force', action='store_true', help='overwrite DST')
    args = parser.parse_args()
    if args.target.exists() and not args.force:
        raise SystemExit(f'error: {args.target} exists; --force overwrites it')
    try:
        config = None if args.config is None else Config.fromfile(args.config)
        checkpoint = convert_file(args.source, args.target, config)
    except (ValueError, OSError) as error:
        raise SystemExit(f'error: {error}')
    classes = len(checkpoint['meta']['dataset_meta']['classes'])
    print(f'Wrote {len(checkpoint["state_dict"])} weights for {classes} classes to {args.target}')
