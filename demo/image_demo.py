"""Segment images. Each one gets a PNG with segment ids, an overlay and a JSON file with its segments.

    python demo/image_demo.py IMAGE_OR_FOLDER CONFIG CHECKPOINT --out-dir outputs

Tiled inference for images larger than the crop size: `--tile 641 --overlap 128`. Test-time augmentation:
`--tta`.
"""
import argparse
import sys
from collections import Counter
from pathlib import Path
from typing import Optional, Sequence

from remax_mm.apis.command_line import (add_cfg_options, add_test_time_arguments, apply_test_time_arguments,
                                        make_parser)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('image', help='image file, or folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out-dir', default='outputs', help='folder of the results (default: %(default)s)')
    parser.add_argument('--device', help='device such as cuda:0 (default: an accelerator if available)')
    parser.add_argument(
        '--pred-score-thr',
        type=float,
        default=0.,
        help='segments with a score below this, in [0, 1], become void (default: %(default)s)')
    add_cfg_options(parser)
    add_test_time_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    import mmcv
    from mmengine.utils import track_iter_progress

    from remax_mm.apis import FailedImagesError, PanopticInferencer, list_images, load_config, save_result

    images = list_images(args.image)
    double = [name for name, number in Counter(image.stem for image in images).items() if number > 1]
    if double:
        raise ValueError(f'Expected images with different names in {args.image}, but the results of '
                         f'{double} would overwrite each other')
    config = apply_test_time_arguments(args, load_config(args.config, args.cfg_options))
    inferencer = PanopticInferencer(config, args.checkpoint, args.device)

    results = inferencer.stream(images, args.pred_score_thr)
    try:
        for result in track_iter_progress((results, len(images)), file=sys.stdout):
            path = Path(result.image_path)
            overlay = inferencer.draw(mmcv.imread(str(path), channel_order='rgb'), result)
            save_result(result, overlay, args.out_dir, path.stem)
    except FailedImagesError as error:
        raise SystemExit(f'\n{error}\nWrote the segments of the other '
                         f'{len(images) - len(error.failed)} images to {args.out_dir}')
    print(f'\nWrote the segments of {len(images)} images to {args.out_dir}')


if __name__ == '__main__':
    main()
