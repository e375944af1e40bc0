"""Configs that test otherwise: on several views of each image, or on tiles of large ones."""
from argparse import ArgumentParser, Namespace
from typing import Sequence, Union

from mmengine.config import Config, ConfigDict


def use_tta(config: Config) -> None:
    """Predict from several views of each image.

    They come from ``tta_pipeline`` and ``tta_model`` of the config, as for mmdet's tools. Where it has none,
    they are the image of the test pipeline and its mirror image, merged by :class:`PanopticTTAModel`.

    Args:
        config: Changed: its model and test pipeline. Options of the model must be in it before.
    """
    dataset = tested_dataset(config)
    if 'tta_pipeline' in config:
        dataset.pipeline = config.tta_pipeline
    else:
        *steps, pack = dataset.pipeline
        flips = [dict(type='RandomFlip', prob=0.), dict(type='RandomFlip', prob=1.)]
        dataset.pipeline = [*steps, dict(type='TestTimeAug', transforms=[flips, [pack]])]
    config.model = ConfigDict(config.get('tta_model', dict(type='PanopticTTAModel')), module=config.model)


def use_tiles(config: Config, tile_size: Union[int, Sequence[int]], overlap: int = 128) -> None:
    """Predict from overlapping tiles of each image, at its original size.

    Args:
        config: Changed: its model, and its test pipeline, which loses its resizing. Options of the model must
            be in it before.
        tile_size, overlap: See :class:`TiledPanopticModel`.
    """
    dataset = tested_dataset(config)
    dataset.pipeline = [step for step in dataset.pipeline if not step_name(step).endswith('Resize')]
    config.model = ConfigDict(
        type='TiledPanopticModel', module=config.model, tile_size=tile_size, overlap=overlap)


def add_test_time_arguments(parser: ArgumentParser) -> None:
    """The arguments that :func:`apply_test_time_arguments` takes."""
    ways = parser.add_mutually_exclusive_group()
    ways.add_argument(
        '--tta',
        action='store_true',
        help='merge several views of each image: those of `tta_pipeline`, or else itself and its mirror image'
    )
    ways.add_argument(
        '--tile',
        nargs='+',
        type=int,
        metavar='SIDE',
        help='segment images in tiles of this side, or height and width: the crop that was trained on')
    parser.add_argument('--overlap', type=int, default=128, help='pixels that tiles share (default: 128)')


def apply_test_time_arguments(args: Namespace, config: Config) -> None:
    """Let a config, which is changed, predict from views or tiles if the command line says so."""
    if args.tta:
        use_tta(config)
    if args.tile:
        use_tiles(config, args.tile, args.overlap)


def tested_dataset(config: Config, split: str = 'test') -> ConfigDict:
    """The dataset that the config tests on, or of another split, without what is wrapped around it."""
    dataset = config[f'{split}_dataloader'].dataset
    while 'dataset' in dataset:
        dataset = dataset.dataset
    return dataset


def loads_annotation(step: dict) -> bool:
    """Whether a pipeline's step reads ground truth."""
    name = step_name(step)
    return name.startswith('Load') and 'Image' not in name


def step_name(step: dict) -> str:
    """Name of the class of a pipeline's step, without its scope."""
    name = step['type'] if isinstance(step['type'], str) else step['type'].__name__
    return name.split('.')[-1]
