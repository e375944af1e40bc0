"""The config of a training or test run: each function takes a config and returns a changed copy of it."""
import copy
from importlib.util import find_spec
from pathlib import Path
from typing import Any, List, Optional, Sequence, Tuple, Union

from mmengine.config import Config, ConfigDict
from mmengine.fileio import join_path
from mmengine.utils import is_abs

from remax_mm.model_names import find_config
from remax_mm.panoptic_format.submission import submission_paths
from .config_keys import check_config_keys

AP_METRIC, IOU_METRIC = 'PanopticInstanceAPMetric', 'PanopticSemanticIoUMetric'


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


def load_weights(config: Config, checkpoint: str) -> Config:
    """Test the weights of a checkpoint, which must fill the model (:class:`CheckWeightsHook`).

    Args:
        checkpoint: File or URL.

    Raises:
        FileNotFoundError: the file does not exist.
    """
    check_checkpoint(checkpoint)
    config = copy.deepcopy(config)
    config.load_from = checkpoint
    config.custom_hooks = [*config.get('custom_hooks', ()), dict(type='CheckWeightsHook')]
    return config


def evaluate_all_tasks(config: Config, instance_ann: Optional[str] = None) -> Config:
    """Predict instances and semantic maps too, and evaluate them with AP and mIoU besides PQ.

    Metrics of the config stay; new ones take ``classwise`` and ``backend_args`` of the first one.

    Args:
        instance_ann: Instance annotations for AP. None takes those of the config, or the thing segments of
            the panoptic annotations.
    """
    config = copy.deepcopy(config)
    all_tasks = dict(panoptic_on=True, instance_on=True, semantic_on=True)
    config.model.test_cfg = dict(config.model.get('test_cfg') or {}, **all_tasks)
    evaluators = _test_evaluators(config)
    shared = {key: evaluators[0][key] for key in ('classwise', 'backend_args') if key in evaluators[0]}
    present = {type_name(evaluator) for evaluator in evaluators}
    evaluators += [dict(type=metric, **shared) for metric in (AP_METRIC, IOU_METRIC) if metric not in present]
    if instance_ann:
        next(e for e in evaluators if type_name(e) == AP_METRIC)['ann_file'] = instance_ann
    config.test_evaluator = evaluators
    return config


def format_only(config: Config, prefix: str) -> Config:
    """Export the predictions in the COCO panoptic format without an evaluation.

    Ground truth is not read: the ``ann_file`` of the test dataset needs ``images`` and ``categories`` only.

    Args:
        prefix: Path of the JSON file and of the PNG folder, without suffix.
    """
    config = copy.deepcopy(config)
    dataset = dataset_config(config)
    dataset.get('data_prefix', {}).pop('seg', None)
    dataset.pipeline = [step for step in dataset.pipeline if not loads_annotation(step)]
    ann_file, data_root = dataset.ann_file, dataset.get('data_root')
    config.test_evaluator = dict(
        type='PanopticQualityMetric',
        format_only=True,
        outfile_prefix=prefix,
        ann_file=join_path(data_root, ann_file) if data_root and not is_abs(ann_file) else ann_file,
        backend_args=dataset.get('backend_args'))
    return config


def check_prefixes(config: Config) -> None:
    """Check that no metric exports its predictions to existing files.

    Raises:
        FileExistsError: a JSON file, PNG folder or archive with the prefix of a metric exists.
    """
    for evaluator in _test_evaluators(config):
        prefix = evaluator.get('outfile_prefix')
        existing = [] if prefix is None else [path for path in submission_paths(prefix) if path.exists()]
        if existing:
            raise FileExistsError(f'Expected a new prefix for the predictions, but {existing[0]} exists')


def use_tta(config: Config) -> Config:
    """Test-time augmentation: predict from several views of each image.

    The views are ``tta_pipeline`` and ``tta_model`` of the config, as for mmdet's tools. If it has none, they
    are the image of the test pipeline and its mirror image, merged by :class:`PanopticTTAModel`.

    Args:
        config: Options of the model must be set before, because the model is wrapped.
    """
    config = copy.deepcopy(config)
    dataset = dataset_config(config)
    if 'tta_pipeline' in config:
        dataset.pipeline = config.tta_pipeline
    else:
        *steps, pack = dataset.pipeline
        flips = [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)]
        dataset.pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    config.model = ConfigDict(config.get('tta_model', dict(type='PanopticTTAModel')), module=config.model)
    return config


def use_tiles(config: Config, tile_size: Union[int, Sequence[int]], overlap: int = 128) -> Config:
    """Tiled inference: predict from overlapping tiles of each image at its original size.

    The test pipeline loses its resize step.

    Args:
        config: Options of the model must be set before, because the model is wrapped.
        tile_size, overlap: In pixels, see :class:`TiledPanopticModel`.
    """
    config = copy.deepcopy(config)
    dataset = dataset_config(config)
    dataset.pipeline = [step for step in dataset.pipeline if not type_name(step).endswith('Resize')]
    config.model = ConfigDict(
        type='TiledPanopticModel', module=config.model, tile_size=tile_size, overlap=overlap)
    return config


def optimize_before_test(config: Config, dtype: str = 'float32') -> Config:
    """Optimize the model with the loaded weights before a test, see :class:`OptimizeHook`."""
    config = copy.deepcopy(config)
    config.custom_hooks = [*config.get('custom_hooks', ()), dict(type='OptimizeHook', dtype=dtype)]
    return config


def draw_predictions(config: Config,
                     show: bool = False,
                     show_dir: Optional[str] = None,
                     wait_time: float = 2.) -> Config:
    """Draw the input, ground truth and prediction of each test image.

    Args:
        show: Whether to open a window.
        show_dir: Folder for the pictures; a relative path is below ``work_dir/<time>``. None keeps that of
            the config.
        wait_time: Seconds between two pictures in the window.

    Raises:
        ValueError: the config has no visualization hook.
    """
    if 'visualization' not in config.get('default_hooks', {}):
        raise ValueError(
            f'Expected `default_hooks.visualization` in {config.filename} for --show and --show-dir')
    config = copy.deepcopy(config)
    hook = config.default_hooks.visualization
    hook.update(draw=True, show=show, wait_time=wait_time)
    if show_dir:
        hook.test_out_dir = show_dir
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


def _test_evaluators(config: Config) -> List[dict]:
    evaluators = config.test_evaluator
    return list(evaluators) if isinstance(evaluators, list) else [evaluators]
