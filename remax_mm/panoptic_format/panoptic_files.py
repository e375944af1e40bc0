"""Annotations and predictions in panopticapi's files: a JSON and a folder of PNGs for each.

Formats: https://cocodataset.org/#format-data and #format-results, section 4 of both.
"""
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Tuple, Union

from .annotation_checks import check_entries
from .annotation_schema import EvaluatedFile, PredictionFile, read_annotations
from .class_order import sort_categories
from .findings import raise_errors
from .json_files import list_some
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
        ValueError: a JSON violates its schema, an id is repeated, an annotated image has no prediction, or a
            category is unknown.
    """
    gt_folder = gt_folder or Path(gt_json).with_suffix('')
    pred_folder = pred_folder or Path(pred_json).with_suffix('')
    _check_exist(files=(gt_json, pred_json), folders=(gt_folder, pred_folder))
    gt = read_annotations(str(gt_json), EvaluatedFile)
    raise_errors([*gt.findings, *check_entries(gt, str(gt_json), all_annotated=False)], str(gt_json))
    pred = read_annotations(str(pred_json), PredictionFile)
    known = {category['id'] for category in gt.content['categories']}
    raise_errors([*pred.findings, *check_entries(pred, str(pred_json), known, all_annotated=False)],
                 str(pred_json))

    categories = sort_categories(gt.content['categories'])
    is_thing = [bool(category['isthing']) for category in categories]
    label_of = {category['id']: label for label, category in enumerate(categories)}
    annotations, predictions = ({
        entry['image_id']: entry
        for entry in file.content['annotations']
    } for file in (gt, pred))
    images = {image['id']: image for image in gt.content.get('images', [])}
    missing = set(annotations) - set(predictions)
    if missing:
        raise ValueError(f'Expected a prediction for each annotated image of {gt_json} in {pred_json}, but '
                         f'{len(missing)} have none: {list_some(missing)}')

    pairs = []
    for image_id, annotation in annotations.items():
        prediction = predictions[image_id]
        pairs.append(
            PanopticPair(
                image_id=image_id,
                gt_png=str(Path(gt_folder, annotation['file_name'])),
                pred_png=str(Path(pred_folder, prediction['file_name'])),
                gt_segments=label_segments(annotation, label_of, sum(is_thing)),
                pred_labels={
                    segment['id']: label_of[segment['category_id']]
                    for segment in prediction['segments_info']
                }))
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
