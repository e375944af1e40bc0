"""Pictures of the images with the worst panoptic predictions."""
from pathlib import Path
from typing import List, Mapping, Optional, Sequence

import mmcv
import numpy as np
from mmdet.registry import DATASETS

from remax_mm.evaluation import ImageErrors, worst_images
from remax_mm.evaluation.panoptic_error_report import summarize_image
from remax_mm.panoptic_format import PanopticFiles, PanopticPair, annotated_panoptic_map, read_segment_ids
from remax_mm.visualization import class_colors, draw_panoptic, enlarge_small, label_panels, spread_colors
from remax_mm.visualization.colors import Color


def write_worst_images(files: PanopticFiles,
                       images: Sequence[ImageErrors],
                       out_dir: Path,
                       number: int,
                       gt_json: Path,
                       img_folder: Optional[Path] = None,
                       dataset_type: str = 'PanopticMapDataset') -> None:
    """Write ``<rank>_<PNG name>.png`` with input, ground truth and prediction of the images of lowest PQ.

    Args:
        files: The dataset and its predictions.
        images: Errors of each image.
        out_dir: Folder, created if it does not exist.
        number: Number of images.
        gt_json: JSON file of the annotations.
        img_folder: Folder of photos. None draws on gray.
        dataset_type: Dataset class that knows the file names of photos and the colors of the classes.

    Raises:
        FileNotFoundError: a photo does not exist.
        ValueError: a photo is not in the annotations, or has another size than its annotation.
    """
    dataset = DATASETS.get(dataset_type)(ann_file=str(gt_json), data_prefix=dict(img=''), lazy_init=True)
    palette = match_colors(files.classes, dataset.metainfo)
    pair_of = {pair.image_id: pair for pair in files.pairs}
    for rank, (quality, image) in enumerate(worst_images(images, files.is_thing)[:number], start=1):
        pair = pair_of[image.image_id]
        photo = None
        if img_folder is not None:
            photo = read_photo(pair, img_folder / dataset.photo_name(photo_info(files, pair)))
        drawn = draw_image(files, pair, image, quality, palette, photo)
        mmcv.imwrite(drawn[..., ::-1], str(out_dir / f'{rank:03d}_{Path(pair.gt_png).stem}.png'))


def match_colors(classes: Sequence[str], metainfo: Mapping) -> List[Color]:
    """Colors of classes by their names in a dataset, which may list them in another order.

    Args:
        classes: Names in the order of the files.
        metainfo: Of the dataset, with ``classes`` and perhaps ``palette``.

    Returns:
        A color for each class, those of :func:`spread_colors` if the dataset has other classes.
    """
    color_of = dict(zip(metainfo['classes'], class_colors(metainfo)))
    if not set(classes) <= set(color_of):
        return spread_colors(len(classes))
    return [color_of[name] for name in classes]


def photo_info(files: PanopticFiles, pair: PanopticPair) -> dict:
    """Entry of an image in the ``images`` of the annotations.

    Raises:
        ValueError: there is none.
    """
    if pair.image_id not in files.images:
        raise ValueError(
            f'Expected the file of the image {pair.image_id!r}, whose annotation is {pair.gt_png}, '
            'among the `images` of the annotations, but it is not there; leave out --img-folder')
    return files.images[pair.image_id]


def read_photo(pair: PanopticPair, path: Path) -> np.ndarray:
    """The photo (H, W, 3) of an annotated image, in RGB.

    Raises:
        FileNotFoundError: there is no such photo.
        ValueError: it has another size than its annotation.
    """
    if not path.is_file():
        raise FileNotFoundError(f'Expected the image {pair.image_id!r} at {path}, but there is none.')
    photo, size = mmcv.imread(str(path), channel_order='rgb'), read_segment_ids(pair.gt_png).shape
    if photo.shape[:2] != size:
        raise ValueError(
            f'Expected {path} to have the size {size} of {pair.gt_png}, but it has {photo.shape[:2]}')
    return photo


def draw_image(files: PanopticFiles,
               pair: PanopticPair,
               image: ImageErrors,
               quality: float,
               palette: Sequence[Color],
               photo: Optional[np.ndarray] = None) -> np.ndarray:
    """Input (gray without a photo), ground truth and prediction with their numbers of errors, in RGB.

    Args:
        quality: PQ of the image in percent.
        palette: RGB colors of the classes of the files.
    """
    annotated, predicted = read_segment_ids(pair.gt_png), read_segment_ids(pair.pred_png)
    if photo is None:
        photo = np.full((*annotated.shape, 3), 128, dtype=np.uint8)
    photo = enlarge_small(photo)

    gt_segments = [dict(s, is_thing=files.is_thing[s['category']]) for s in pair.gt_segments]
    pred_segments = [
        dict(id=segment_id, category=label, is_thing=files.is_thing[label])
        for segment_id, label in pair.pred_labels.items()
    ]
    panels = [(f'PQ {quality:.1f}', photo)]
    for title, ids, segments, is_annotated in (('ground truth', annotated, gt_segments, True),
                                               ('prediction', predicted, pred_segments, False)):
        panoptic_map = annotated_panoptic_map(ids, segments, len(files.classes))
        drawn = draw_panoptic(photo, enlarge_small(panoptic_map, is_map=True), files.classes, palette)
        panels.append((f'{title}: {summarize_image(image, is_annotated)}', drawn))
    return label_panels(panels)
