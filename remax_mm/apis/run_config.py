"""The config of a run, and its options for training: functions take a config and return a changed copy."""
import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Optional, Tuple, Union

from mmengine.config import Config, ConfigDict

from remax_mm.model_names import find_config
from .config_keys import check_config_keys


def load_config(config: Union[str, Path, Config], cfg_options: Optional[dict] = None) -> Config:
    """A config file, the config of a model by its name, or a loaded config, with overrides by dotted keys.

    Raises:
        FileNotFoundError: there is neither a file nor a model of this name, see :func:`find_config`.
    """
    if not isinstance(config, Config):
        config = Config.fromfile(config if Path(config).is_file() else find_config(str(config)))
    if cfg_options:
        config = copy.deepcopy(config)
        config.merge_from_dict(cfg_options)
    return share_backend_args(config)


def share_backend_args(config: Config) -> Config:
    """Give the ``backend_args`` at the top of a config to every reader whose own are None.

    Datasets, pipelines, metrics and hooks of the base configs have this key.
    """
    shared = config.get('backend_args')
    if shared is None:
        return config

    def fill(value: Any) -> None:
        if isinstance(value, dict):
            if 'backend_args' in value and value['backend_args'] is None:
                value['backend_args'] = copy.deepcopy(shared)
            value = list(value.values())
        if isinstance(value, (list, tuple)):
            for item in value:
                fill(item)

    config = copy.deepcopy(config)
    fill(config._cfg_dict)
    return config


def load_run_config(path: Union[str, Path],
                    cfg_options: Optional[dict] = None,
                    work_dir: Optional[str] = None,
                    launcher: str = 'none') -> Config:
    """The config of a run: the file, then ``cfg_options``, then the other arguments.

    Args:
        path: Config file.
        cfg_options: Overrides by dotted keys.
        work_dir: Folder of logs and checkpoints. None keeps the folder of the config, or
            ``work_dirs/<name of the config file>`` if it has none.
        launcher: How the processes were started: none, pytorch, slurm or mpi.

    Raises:
        FileNotFoundError: the file does not exist.
        ValueError: a key is misspelled, see :func:`check_config_keys`.
    """
    config = load_config(path, cfg_options)
    check_config_keys(config)
    config.launcher = launcher
    if work_dir:
        config.work_dir = work_dir
    elif config.get('work_dir') is None:
        config.work_dir = str(Path('work_dirs') / Path(path).stem)
    return config


def use_mixed_precision(config: Config, dtype: Optional[str] = None) -> Config:
    """Train with automatic mixed precision; other options of the optimizer wrapper stay.

    Unless the config sets ``optim_wrapper.loss_scale``, float16 scales the loss dynamically, because its
    smallest gradients would underflow. bfloat16 has the range of float32 and needs no scale.

    Args:
        dtype: ``float16`` or ``bfloat16``. None keeps that of the config, or mmengine's default, float16.

    Raises:
        ValueError: the optimizer wrapper is neither OptimWrapper nor AmpOptimWrapper.
    """
    config = copy.deepcopy(config)
    wrapper = config.optim_wrapper
    if 'type' in wrapper and type_name(wrapper) not in ('OptimWrapper', 'AmpOptimWrapper'):
        raise ValueError(
            f'Expected `optim_wrapper.type` to be OptimWrapper for --amp, but got {wrapper.type}')
    wrapper.type = 'AmpOptimWrapper'
    if dtype is not None:
        wrapper.dtype = dtype
    is_bfloat16 = wrapper.get('dtype') == 'bfloat16'
    wrapper.setdefault('loss_scale', dict(enabled=False) if is_bfloat16 else 'dynamic')
    return config


def scale_learning_rate(config: Config) -> Config:
    """Scale the learning rate by the total batch size over ``auto_scale_lr.base_batch_size``.

    Raises:
        ValueError: the config has no ``auto_scale_lr.base_batch_size``.
    """
    if 'base_batch_size' not in config.get('auto_scale_lr', {}):
        raise ValueError(f'Expected `auto_scale_lr.base_batch_size` in {config.filename} for --auto-scale-lr')
    config = copy.deepcopy(config)
    config.auto_scale_lr.enable = True
    return config


def resume_training(config: Config, checkpoint: Optional[str] = None) -> Config:
    """Resume a training with its optimizer state, schedule and iteration.

    Args:
        checkpoint: File or URL. None takes the latest checkpoint of the work dir.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    if checkpoint is not None:
        check_checkpoint(checkpoint)
    config = copy.deepcopy(config)
    config.resume = True
    config.load_from = checkpoint
    return config


def use_tensorboard(config: Config) -> Config:
    """Write losses, metrics and pictures for TensorBoard too, to ``<work_dir>/<time>/vis_data``.

    Raises:
        ModuleNotFoundError: TensorBoard is not installed.
        ValueError: the config has no visualizer.
    """
    if find_spec('tensorboard') is None:
        raise ModuleNotFoundError(
            'Expected TensorBoard for --tensorboard, but it is not installed: `pip install tensorboard`, '
            'included in the extra remax_mm[tools]')
    if 'visualizer' not in config:
        raise ValueError(f'Expected `visualizer` in {config.filename} for --tensorboard')
    config = copy.deepcopy(config)
    backends = list(config.visualizer.get('vis_backends') or [])
    if all(backend['type'] != 'TensorboardVisBackend' for backend in backends):
        config.visualizer.vis_backends = [*backends, dict(type='TensorboardVisBackend')]
    return config


def check_checkpoint(path: Union[str, Path]) -> None:
    """
    Raises:
        FileNotFoundError: the checkpoint, unless it is a URL, does not exist.
    """
    if '://' not in str(path) and not Path(path).is_file():
        raise FileNotFoundError(f'Expected a checkpoint at {path}, but there is none.')


def find_training(folder: Union[str, Path]) -> Tuple[Path, Path]:
    """Config and last checkpoint of a finished training.

    Args:
        folder: Work directory of the training, one's own: its config is Python and runs.

    Raises:
        FileNotFoundError: there is no training, or none with a checkpoint.
        ValueError: there are the configs of several trainings.
    """
    configs, last = sorted(Path(folder).glob('*.py')), Path(folder) / 'last_checkpoint'
    if not (configs and last.is_file()):
        raise FileNotFoundError(
            f'Expected a finished training in {folder}, but there is none; train a model, '
            'for example with `make demo`, or name another one')
    if len(configs) > 1:
        raise ValueError(f'Expected one config in {folder}, but there are {[path.name for path in configs]}')
    # The file has the path from where the training was started; the folder may have been moved.
    return configs[0], Path(folder) / Path(last.read_text().strip()).name


def dataset_config(config: Config, split: str = 'test') -> ConfigDict:
    """The part of a config that defines the dataset of a split, without the datasets that wrap it."""
    dataset = config[f'{split}_dataloader'].dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def loads_annotation(step: dict) -> bool:
    """Whether a step of a pipeline reads ground truth."""
    name = type_name(step)
    return name.startswith('Load') and 'Image' not in name


def type_name(config: dict) -> str:
    """Name of the class that a config builds, without its scope; new-style configs have the class itself."""
    name = config['type'] if isinstance(config['type'], str) else config['type'].__name__
    return name.split('.')[-1]
