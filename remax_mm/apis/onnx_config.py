"""Configs that run an ONNX file instead of a model."""
import copy
from pathlib import Path
from typing import Union

from mmengine.config import Config, ConfigDict

from remax_mm.deploy.remax_runtime import ModelFileError, PanopticModel
from .run_config import dataset_config


def use_onnx(config: Config, file: Union[str, Path], num_threads: int = 0) -> Config:
    """Test an exported model with the data and the metrics of a config.

    Args:
        file: ONNX file, or the folder that has it.
        num_threads: threads of an operator; 0 lets onnxruntime choose.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: onnxruntime is not installed.
        ValueError: the file is no model of remax_mm, or was exported from a config with other classes or
            another size of the images.
    """
    metadata = PanopticModel(file).metadata
    check_same_resize(config, metadata, file)
    config = copy.deepcopy(config)
    model = config.model
    fusion_head = None
    if metadata['outputs'] == 'logits' and model.panoptic_fusion_head.type in ('KMaXFusionHead',
                                                                               'MaXFusionHead'):
        counts = {key: model.panoptic_head[key] for key in ('num_things_classes', 'num_stuff_classes')}
        fusion_head = dict(model.panoptic_fusion_head, **counts, test_cfg=model.get('test_cfg'))
    config.model = ConfigDict(
        type='OnnxDetector', file=str(file), num_threads=num_threads, panoptic_fusion_head=fusion_head)
    config.custom_hooks = []  # they change or check the weights of the model of the config
    config.load_from = None
    return config


def check_same_resize(config: Config, metadata: dict, file: Union[str, Path]) -> None:
    """
    Raises:
        ValueError: the test pipeline resizes images in another way, or the model has other classes.
    """
    steps = [step for step in dataset_config(config).pipeline if str(step['type']).endswith('Resize')]
    expected = metadata['resize']
    found = [(list(step.get('scale', ())), bool(step.get('keep_ratio', False))) for step in steps]
    if found != [(expected['scale'], expected['keep_ratio'])]:
        raise ModelFileError(
            f'Expected a test pipeline that resizes images to {expected["scale"]} (width, '
            f'height) with keep_ratio={expected["keep_ratio"]}, as for {file}, but got {found}')
    head = config.model.get('panoptic_head', {})
    num_classes = head.get('num_things_classes', 0) + head.get('num_stuff_classes', 0)
    if num_classes != len(metadata['classes']):
        raise ModelFileError(
            f'Expected a model of {num_classes} classes, those of the config, but {file} has '
            f'{len(metadata["classes"])}')


def is_deployed(path: object) -> bool:
    """Whether a path names an ONNX file, or a folder with ``model.onnx``."""
    if not isinstance(path, (str, Path)):
        return False
    return Path(path).suffix == '.onnx' or (Path(path) / 'model.onnx').is_file()


def deployed_config(file: Union[str, Path]) -> Config:
    """A config with an exported model and its test pipeline, for :class:`PanopticInferencer`.

    Args:
        file: ONNX file, or the folder that has it.

    Raises:
        FileNotFoundError: the file does not exist.
        ImportError: onnxruntime is not installed.
        ValueError: the file is no model of remax_mm, or gives logits.
    """
    exported = PanopticModel(file)
    if exported.metadata['outputs'] != 'slots':
        raise ModelFileError(
            f'Expected a model that prepares the merging of its masks, but {exported.path} gives '
            f'{exported.metadata["outputs"]}: export it without --logits')
    resize, num_things = exported.metadata['resize'], exported.metadata['num_things']
    meta = dict(
        classes=exported.classes,
        thing_classes=exported.classes[:num_things],
        stuff_classes=exported.classes[num_things:])
    if exported.metadata['palette'] is not None:
        meta['palette'] = exported.metadata['palette']
    pipeline = [
        dict(type='LoadImageFromFile'),
        dict(type='Resize', scale=tuple(resize['scale']), keep_ratio=resize['keep_ratio']),
        dict(type='PackPanopticInputs')
    ]
    dataset = dict(type='PanopticMapDataset', metainfo=meta, data_prefix=dict(img=''), pipeline=pipeline)
    return Config(
        dict(
            default_scope='mmdet',
            model=dict(type='OnnxDetector', file=str(file)),
            test_dataloader=dict(dataset=dataset)))
