"""Annotations and predictions in panopticapi's files: a JSON and a folder of PNGs for each.

Formats: https://cocodataset.org/#format-data and #format-results, section 4 of both.
"""
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Tuple, Union

from .class_order import sort_categories
from .json_files import annotations_by_image, list_some, read_panoptic_json, require_keys
from .segment_ids import VOID_ID
from .segments_info import label_segments

PathLike = Union[str, Path]


class PanopticPair(NamedTuple):
    """The annotation and the prediction of one image.

    Attributes:
        image_id: Id of the image, a number or a string.
        gt_png, pred_png: Paths.
        gt_segments: The annotated segments, see :func:`label_segments`.
        pred_labels: Label in [0, K) of each predicted segment id.
    """
    image_id: Any
    gt_png: str
    pred_png: str
    gt_segments: List[Dict[str, Any]]
    pred_labels: Dict[int, int]


class PanopticFiles(NamedTuple):
    """An annotated dataset and its predictions.

    Attributes:
        classes: K names, in the order of :func:`sort_categories`.
        is_thing: (K,).
        category_ids: (K,) ids in the JSON files.
        pairs: One for each annotated image.
        images: Entry of each image in the JSON of the annotations, by image id.
        unused: Image ids of predictions without an annotation.
    """
    classes: List[str]
    is_thing: List[bool]
    category_ids: List[int]
    pairs: List[PanopticPair]
    images: Dict[Any, Dict[str, Any]]
    unused: List[Any]


def read_panoptic_files(gt_json: PathLike,
                        pred_json: PathLike,
                        gt_folder: Optional[PathLike] = None,
                        pred_folder: Optional[PathLike] = None) -> PanopticFiles:
    """Read two JSON files and pair the annotation and the prediction of each image; PNGs are not opened.

    Args:
        gt_json, pred_json: Annotations and predictions.
        gt_folder, pred_folder: Their PNGs; None is the folder with the name of the JSON without its suffix.

    Raises:
        FileNotFoundError: a file or a folder does not exist.
        ValueError: a JSON is incomplete, an image or a segment id is repeated, an annotated image has no
            prediction, or a category is unknown.
    """
    gt_folder = gt_folder or Path(gt_json).with_suffix('')
    pred_folder = pred_folder or Path(pred_json).with_suffix('')
    _check_exist(files=(gt_json, pred_json), folders=(gt_folder, pred_folder))
    gt = read_panoptic_json(str(gt_json), ('annotations', 'categories'))
    pred = read_panoptic_json(str(pred_json), ('annotations', ))

    categories = sort_categories(gt['categories'], str(gt_json))
    is_thing = [bool(category['isthing']) for category in categories]
    label_of = {category['id']: label for label, category in enumerate(categories)}
    annotations = annotations_by_image(gt['annotations'], str(gt_json))
    predictions = annotations_by_image(pred['annotations'], str(pred_json))
    with require_keys(str(gt_json)):
        images = {image['id']: image for image in gt.get('images', [])}
    missing = set(annotations) - set(predictions)
    if missing:
        raise ValueError(f'Expected a prediction for each annotated image of {gt_json} in {pred_json}, but '
                         f'{len(missing)} have none: {list_some(missing)}')

    pairs = []
    for image_id, annotation in annotations.items():
        gt_png, gt_segments = _read_entry(annotation, gt_folder, label_of, sum(is_thing), gt_json)
        pred_png, pred_segments = _read_entry(predictions[image_id], pred_folder, label_of, sum(is_thing),
                                              pred_json)
        pred_labels = {segment['id']: segment['category'] for segment in pred_segments}
        pairs.append(PanopticPair(image_id, gt_png, pred_png, gt_segments, pred_labels))
    return PanopticFiles(
        classes=[category['name'] for category in categories],
        is_thing=is_thing,
        category_ids=list(label_of),
        pairs=pairs,
        images=images,
        unused=[image_id for image_id in predictions if image_id not in annotations])


def _check_exist(files: Tuple[PathLike, ...], folders: Tuple[PathLike, ...]) -> None:
    for path in files:
        if not Path(path).is_file():
            raise FileNotFoundError(f'Expected a JSON file at {path}, but there is none')
    for path in folders:
        if not Path(path).is_dir():
            raise FileNotFoundError(f'Expected a folder of PNGs at {path}, but there is none')


def _read_entry(annotation: Mapping, folder: PathLike, label_of: Mapping[int, int], num_things: int,
                json_path: PathLike) -> Tuple[str, List[Dict[str, Any]]]:
    """Path of the PNG, and the segments, of one entry of ``annotations``."""
    with require_keys(str(json_path)):
        segments = label_segments(annotation, label_of, num_things, str(json_path))
        png = str(Path(folder, annotation['file_name']))
    ids = [segment['id'] for segment in segments]
    invalid = {segment_id for segment_id in ids if ids.count(segment_id) > 1 or segment_id == VOID_ID}
    if invalid:
        raise ValueError(f'Expected different segment ids other than {VOID_ID} in each entry of {json_path}, '
                         f'but the entry of {png} has {list_some(invalid)}')
    return png, segments
