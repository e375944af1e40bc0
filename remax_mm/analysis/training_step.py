"""A model and its training data as a training has them, for measurements that do not train."""
from contextlib import contextmanager
from pathlib import Path
from typing import Iterator, NamedTuple, Optional, Union

import torch
from mmdet.models.detectors import BaseDetector
from mmdet.registry import MODELS
from mmengine.config import Config
from mmengine.device import get_device
from mmengine.registry import init_default_scope
from mmengine.runner import Runner, load_checkpoint, set_random_seed
from torch import nn
from torch.utils.data import DataLoader


class Training(NamedTuple):
    """A model on its device, and the loader of its training data."""
    model: BaseDetector
    loader: DataLoader


def load_training(config: Config, checkpoint: Optional[Union[str, Path]] = None, seed: int = 0) -> Training:
    """Build the model and the data loader of a config.

    Args:
        config: Its ``train_dataloader`` gives the batches; the same data and seed give the same batches.
        checkpoint: File or URL. None for the weights that training starts from.
        seed: Random seed of the images, and of the weights without a checkpoint.

    Raises:
        RuntimeError: the checkpoint is that of another model.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    set_random_seed(seed)
    model = MODELS.build(config.model)
    if checkpoint is None:
        model.init_weights()
    else:
        load_checkpoint(model, str(checkpoint), map_location='cpu', strict=True)

    set_random_seed(seed)  # the augmentation must not depend on the initialization
    return Training(model.to(get_device()), Runner.build_dataloader(config.train_dataloader, seed=seed))


@contextmanager
def in_training(model: nn.Module) -> Iterator[None]:
    """Training mode without gradients; running statistics and the mode are restored at the end."""
    buffers = {name: buffer.clone() for name, buffer in model.named_buffers()}
    was_training = model.training
    try:
        with torch.no_grad():
            model.train()
            yield
    finally:
        model.train(was_training)
        for name, buffer in model.named_buffers():
            buffer.copy_(buffers[name])
