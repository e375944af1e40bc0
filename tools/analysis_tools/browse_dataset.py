"""Draw the images of a dataset with their segments, as they leave the pipeline."""
import argparse
from pathlib import Path

from mmdet.registry import DATASETS, VISUALIZERS
from mmengine.config import Config, DictAction
from mmengine.registry import init_default_scope
from mmengine.utils import ProgressBar

import remax_mm  # noqa: F401  (registers datasets and visualizer)


def parse_args() -> argparse.Namespace:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument('config', help='config file')
    parser.add_argument('--split', choices=['train', 'val', 'test'], default='train')
    parser.add_argument('--output-dir', help='write <number>_<image name>.png to this folder')
    parser.add_argument('--not-show', action='store_true', help='open no window')
    parser.add_argument('--show-interval', type=float, default=2, help='seconds between pictures')
    parser.add_argument('--num-images', type=int, help='stop after so many images (default: all)')
    parser.add_argument('--cfg-options', nargs='+', action=DictAction, help='overrides of the config')
    return parser.parse_args()


def main() -> None:
    args = parse_args()
    if not Path(args.config).is_file():
        raise FileNotFoundError(f'Expected a config file at {args.config}, but there is none.')
    if args.not_show and args.output_dir is None:
        raise ValueError('Expected --output-dir together with --not-show: the pictures would go nowhere')
    cfg = Config.fromfile(args.config)
    if args.cfg_options:
        cfg.merge_from_dict(args.cfg_options)
    init_default_scope(cfg.get('default_scope', 'mmdet'))

    dataset = DATASETS.build(cfg[f'{args.split}_dataloader'].dataset)
    visualizer = VISUALIZERS.build(dict(type='PanopticVisualizer', name='browse_dataset', alpha=0.6))
    visualizer.dataset_meta = dataset.metainfo

    count = len(dataset) if args.num_images is None else min(args.num_images, len(dataset))
    progress = ProgressBar(count)
    for index in range(count):
        item = dataset[index]
        sample = item['data_samples']
        image = item['inputs'].numpy().transpose(1, 2, 0)[..., ::-1]  # BGR to RGB
        name = f'{index:06d}_{Path(sample.img_path).stem}'
        out_file = None if args.output_dir is None else str(Path(args.output_dir) / f'{name}.png')
        visualizer.add_datasample(
            name,
            image,
            sample,
            draw_pred=False,
            show=not args.not_show,
            wait_time=args.show_interval,
            out_file=out_file)
        progress.update()
    print()


if __name__ == '__main__':
    main()
