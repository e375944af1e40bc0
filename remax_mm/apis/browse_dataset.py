"""Pictures of the samples of a dataset."""
import sys
from pathlib import Path
from typing import Optional

from mmdet.registry import DATASETS, VISUALIZERS
from mmengine.config import Config
from mmengine.registry import init_default_scope
from mmengine.utils import track_iter_progress


def browse_dataset(config: Config,
                   split: str = 'train',
                   out_dir: Optional[Path] = None,
                   show: bool = False,
                   wait_time: float = 2.,
                   num_images: Optional[int] = None) -> None:
    """Draw the images of a dataset with their segments, as they come out of the pipeline.

    Args:
        config: Config with a data loader for the split.
        split: ``train``, ``val`` or ``test``.
        out_dir: Folder for ``<number>_<image name>.png``. None writes nothing.
        show: Whether to open a window.
        wait_time: Seconds between two pictures in the window.
        num_images: At most this many images, all if None.
    """
    init_default_scope(config.get('default_scope', 'mmdet'))
    dataset = DATASETS.build(config[f'{split}_dataloader'].dataset)
    visualizer = VISUALIZERS.build(dict(type='PanopticVisualizer', name='browse_dataset', alpha=0.6))
    visualizer.dataset_meta = dataset.metainfo

    count = len(dataset) if num_images is None else min(num_images, len(dataset))
    for index in track_iter_progress(range(count), file=sys.stdout):
        item = dataset[index]
        sample = item['data_samples']
        image = item['inputs'].numpy().transpose(1, 2, 0)[..., ::-1]  # BGR to RGB
        name = f'{index:06d}_{Path(sample.img_path).stem}'
        visualizer.add_datasample(
            name,
            image,
            sample,
            draw_pred=False,
            show=show,
            wait_time=wait_time,
            out_file=None if out_dir is None else str(out_dir / f'{name}.png'))
