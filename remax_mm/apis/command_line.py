"""What the command lines of several tools share: parser, groups of arguments, and errors as exit codes.

Nothing here imports torch or mmdet. A tool imports what it needs of them in its ``main``, after it has parsed
its arguments, so that ``--help`` and a wrong argument answer at once.
"""
import signal
from argparse import ArgumentParser, Namespace, RawDescriptionHelpFormatter
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Iterator, Optional, Sequence

from mmengine.config import Config, DictAction

from remax_mm.checkpoint_loading import DownloadError
from remax_mm.model_names import list_models


def make_parser(description: Optional[str]) -> ArgumentParser:
    """A parser that prints the description, the docstring of a tool, with its line breaks."""
    return ArgumentParser(description=description, formatter_class=RawDescriptionHelpFormatter)


def add_cfg_options(parser: ArgumentParser, example: str = 'model.test_cfg.thing_threshold=0.5') -> None:
    """Add ``--cfg-options``, a dict of overrides by dotted keys."""
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        metavar='KEY=VALUE',
        help=f'overrides of the config, such as {example} a.list="[1,2]"')


def add_model_arguments(parser: ArgumentParser, default: Optional[str] = None) -> None:
    """Add the arguments of a demo for its model: model, checkpoint, device and score threshold.

    Args:
        default: What the demo takes without a model. None requires a model.
    """
    kinds = 'config file, name of a model, or model of tools/misc/publish.py (file or folder)'
    if default is None:
        parser.add_argument('model', help=kinds)
    else:
        parser.add_argument('model', nargs='?', help=f'{kinds} (default: {default})')
    parser.add_argument('checkpoint', nargs='?', help='checkpoint file or URL, for a config or a name')
    parser.add_argument('--device', help='device such as cuda:0 (default: an accelerator if available)')
    parser.add_argument(
        '--pred-score-thr',
        type=float,
        default=0.,
        help='segments with a score below this, in [0, 1], become void (default: %(default)s)')


def require_checkpoint(args: Namespace) -> None:
    """Check that :func:`add_model_arguments` got weights; a model would segment with its initial ones.

    Raises:
        ValueError: the model is a config, or the name of one, and there is no checkpoint.
    """
    is_config = args.model is not None and (args.model.endswith('.py') or args.model in list_models())
    if is_config and args.checkpoint is None:
        raise ValueError(f'Expected a checkpoint for the config {args.model}, but got none')


def add_launch_arguments(parser: ArgumentParser) -> None:
    """Add the arguments that the scripts for several processes set."""
    parser.add_argument(
        '--launcher',
        choices=['none', 'pytorch', 'slurm', 'mpi'],
        default='none',
        help='how the processes were started (default: %(default)s)')
    parser.add_argument(
        '--local_rank',
        '--local-rank',
        type=int,
        default=0,
        help='number of the process on its machine, set by the launcher (default: %(default)s)')


def add_test_time_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of test-time augmentation and tiled inference."""
    methods = parser.add_mutually_exclusive_group()
    methods.add_argument(
        '--tta',
        action='store_true',
        help='merge several views of each image: those of `tta_pipeline` in the config, or the image and its '
        'mirror image')
    methods.add_argument(
        '--tile',
        nargs='+',
        type=int,
        metavar='SIDE',
        help='segment images in tiles of this side, or height and width: the crop size of the training')
    parser.add_argument(
        '--overlap', type=int, default=128, help='overlap of the tiles in pixels (default: %(default)s)')


def apply_test_time_arguments(args: Namespace, config: Config) -> Config:
    """The config, changed for ``--tta`` or ``--tile`` if one of them is given."""
    from .evaluation_config import use_tiles, use_tta

    if args.tta:
        return use_tta(config)
    if args.tile:
        return use_tiles(config, args.tile, args.overlap)
    return config


def add_processes(parser: ArgumentParser) -> None:
    """Add ``--processes``."""
    parser.add_argument('--processes', type=int, default=1, help='number of processes (default: %(default)s)')


def add_overwrite(parser: ArgumentParser) -> None:
    """Add ``--overwrite`` of the dataset converters."""
    parser.add_argument('--overwrite', action='store_true', help='replace existing files that differ')


def add_panoptic_file_arguments(parser: ArgumentParser) -> None:
    """Add the arguments of :func:`read_panoptic_files`, and how to compare the files."""
    folder = 'folder of its PNGs (default: the JSON file without its suffix)'
    parser.add_argument('--gt-json', required=True, type=Path, help='JSON file of the annotations')
    parser.add_argument('--gt-folder', type=Path, help=folder)
    parser.add_argument('--pred-json', required=True, type=Path, help='JSON file of the predictions')
    parser.add_argument('--pred-folder', type=Path, help=folder)
    add_processes(parser)
    parser.add_argument(
        '--allow-unlisted-ids',
        action='store_true',
        help='accept annotated ids that are only in the PNG or only in the JSON file, and count them as '
        'panopticapi does: pixels of an unlisted id as wrong, a segment without pixels as missed')


def parse_checkpoint_arguments(parser: ArgumentParser, source: str,
                               arguments: Optional[Sequence[str]]) -> Namespace:
    """Arguments of a checkpoint converter: ``source``, ``target``, ``config`` and ``force``.

    Args:
        parser: Parser of the tool.
        source: Description of the file to read.
        arguments: Command line, that of the process if None.

    Raises:
        SystemExit: the target exists and may not be overwritten.
    """
    parser.add_argument('source', type=Path, metavar='SRC', help=source)
    parser.add_argument('target', type=Path, metavar='DST', help='checkpoint to write')
    parser.add_argument(
        '--config',
        type=Path,
        help='config that the checkpoint must fit; its text is stored in the checkpoint')
    parser.add_argument('--force', action='store_true', help='overwrite DST')
    args = parser.parse_args(arguments)
    if args.target.exists() and not args.force:
        raise SystemExit(f'error: {args.target} exists; --force overwrites it')
    return args


@contextmanager
def exit_on_error() -> Iterator[None]:
    """Print bad input or a missing package as one line without a traceback and exit with code 1."""
    try:
        yield
    except (ValueError, OSError, ImportError) as error:
        raise SystemExit(f'error: {error}') from error


@contextmanager
def exit_on_sigterm() -> Iterator[None]:
    """Let SIGTERM end the context as an exception, so that the processes that a tool has started end too."""

    def leave(number: int, frame: Optional[FrameType]) -> None:
        raise SystemExit(128 + number)

    former = signal.signal(signal.SIGTERM, leave)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, former)


@contextmanager
def exit_on_failed_download() -> Iterator[None]:
    """Print a failed download of weights as one sentence without a traceback and exit with code 1."""
    try:
        yield
    except DownloadError as error:
        raise SystemExit(f'error: {error}') from None
