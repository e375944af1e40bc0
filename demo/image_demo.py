"""Segment images. Each one gets a PNG with segment ids, an overlay and a JSON file with its segments.

    python demo/image_demo.py IMAGE MODEL CHECKPOINT --out-dir outputs
    python demo/image_demo.py IMAGE remax-t-0a1b2c3d.safetensors --out-dir outputs

IMAGE is a file, a folder or a URL. MODEL is a config, the name of a model, or a file of
tools/misc/publish.py, which needs no checkpoint.

Tiled inference for images larger than the crop size: `--tile 641 --overlap 128`. Test-time augmentation:
`--tta`.
"""
import argparse
from typing import Optional, Sequence

from remax_mm.apis.command_line import (add_cfg_options, add_model_arguments, add_test_time_arguments,
                                        apply_test_time_arguments, make_parser, require_checkpoint)


def parse_args(arguments: Optional[Sequence[str]] = None) -> argparse.Namespace:
    parser = make_parser(__doc__)
    parser.add_argument('image', help='image file, URL, or folder of images')
    add_model_arguments(parser)
    parser.add_argument('--out-dir', default='outputs', help='folder of the results (default: %(default)s)')
    parser.add_argument('--batch-size', type=int, default=1, help='images at once (default: %(default)s)')
    add_cfg_options(parser)
    add_test_time_arguments(parser)
    return parser.parse_args(arguments)


def main(arguments: Optional[Sequence[str]] = None) -> None:
    args = parse_args(arguments)
    from remax_mm.apis import FailedImagesError, PanopticInferencer, list_images
    from remax_mm.apis.published_model import is_published, read_config

    require_checkpoint(args)
    images = list_images(args.image)
    config = apply_test_time_arguments(args, read_config(args.model, args.cfg_options))
    weights = args.model if args.checkpoint is None and is_published(args.model) else args.checkpoint
    inferencer = PanopticInferencer(config, weights, args.device)
    try:
        inferencer(images, args.batch_size, args.pred_score_thr, out_dir=args.out_dir)
    except FailedImagesError as error:
        raise SystemExit(f'\n{error}\nWrote the segments of the other '
                         f'{len(images) - len(error.failed)} images to {args.out_dir}')
    print(f'\nWrote the segments of {len(images)} images to {args.out_dir}')


if __name__ == '__main__':
    main()
