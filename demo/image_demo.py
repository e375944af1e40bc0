"""Segment images: ids as PNG, overlay as PNG and segments as JSON for each.

    python demo/image_demo.py IMAGE_OR_FOLDER CONFIG CHECKPOINT --out-dir outputs

Images larger than the crop in tiles: `--tile 641 --overlap 128`; several views of each image: `--tta`.
"""
import argparse
import sys
from collections import Counter
from pathlib import Path

import mmcv
from mmengine.config import DictAction
from mmengine.utils import track_iter_progress

import remax_mm  # noqa: F401  (makes mmdet importable and registers the models)
from remax_mm.apis import (PanopticInferencer, add_test_time_arguments, apply_test_time_arguments,
                           list_images, load_config, save_result)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(
        description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument('image', help='image file, or folder of images')
    parser.add_argument('config', help='config file')
    parser.add_argument('checkpoint', help='checkpoint file or URL')
    parser.add_argument('--out-dir', default='outputs', help='folder of the results')
    parser.add_argument('--device', help='such as cpu or cuda:0 (default: an accelerator if there is one)')
    parser.add_argument(
        '--pred-score-thr', type=float, default=0., help='segments with a lower score in [0, 1] become void')
    parser.add_argument(
        '--cfg-options',
        nargs='+',
        action=DictAction,
        help='overrides of the config, such as model.test_cfg.thing_threshold=0.5')
    add_test_time_arguments(parser)
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    images = list_images(args.image)
    double = [name for name, number in Counter(image.stem for image in images).items() if number > 1]
    if double:
        raise ValueError(f'Expected images with different names in {args.image}, but the results of '
                         f'{double} would overwrite each other')
    config = load_config(args.config, args.cfg_options)
    apply_test_time_arguments(args, config)
    inferencer = PanopticInferencer(config, args.checkpoint, args.device)

    results = inferencer.stream(images, args.pred_score_thr)
    for result in track_iter_progress((results, len(images)), file=sys.stdout):
        path = Path(result.image_path)
        overlay = inferencer.draw(mmcv.imread(str(path), channel_order='rgb'), result)
        save_result(result, overlay, args.out_dir, path.stem)
    print(f'\nWrote the segments of {len(images)} images to {args.out_dir}')


if __name__ == '__main__':
    main()
