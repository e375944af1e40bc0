"""Annotations and predictions as panopticapi's files: a JSON and a folder of PNGs each.

Format: https://cocodataset.org/#format-data, section 4, and #format-results, section 4.
"""
from pathlib import Path
from typing import Any, Dict, List, Mapping, NamedTuple, Optional, Sequence, Union

from mmengine.fileio import load

from .segment_ids import VOID_ID

PathLike = Union[str, Path]


class PanopticPair(NamedTuple):
    """What the files tell of one image.

    Attributes:
        image_id: Its id, a number or a string.
        gt_png, pred_png: Paths.
        gt_segments: Of each annotated segment ``id``, ``category`` (label in [0, K)) and ``iscrowd``.
        pred_labels: Label of each predicted segment id.
    """
    image_id: Any
    gt_png: str
    pred_png: str
    gt_segments: List[Dict[str, Any]]
    pred_labels: Dict[int, int]


class PanopticFiles(NamedTuple):
    """An annotated dataset and its predictions.

    Attributes:
        classes: K names, things first.
        is_thing: (K,).
        category_ids: (K,) of the JSON files.
        pairs: One for each annotated image.
        images: Entry of each image in the annotations, by its id.
        unused: Image ids of predictions that no annotation asks for.
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
    """Read the two JSON files and pair their images; the PNGs are not opened.

    Args:
        gt_json, pred_json: Annotations and predictions.
        gt_folder, pred_folder: Their PNGs; a folder named as the JSON without its suffix where None.

    Raises:
        FileNotFoundError: a file or a folder is missing.
        ValueError: a JSON lacks what it must have, an image or a segment stands twice, an annotated image has
            no prediction, or a category is unknown.
    """
    gt_folder = gt_folder or Path(gt_json).with_suffix('')
    pred_folder = pred_folder or Path(pred_json).with_suffix('')
    for path, exists in ((gt_json, Path.is_file), (pred_json, Path.is_file), (gt_folder, Path.is_dir),
                         (pred_folder, Path.is_dir)):
        if not exists(Path(path)):
            what = 'a JSON file' if exists is Path.is_file else 'a folder of PNGs'
            raise FileNotFoundError(f'Expected {what} at {path}, but there is none.')
    gt = _load(gt_json, 'annotations', 'categories')
    categories = _things_first(gt['categories'], gt_json)
    label_of = {category['id']: label for label, category in enumerate(categories)}
    annotation_of = _by_image(gt['annotations'], gt_json)
    prediction_of = _by_image(_load(pred_json, 'annotations')['annotations'], pred_json)
    missing = [image_id for image_id in annotation_of if image_id not in prediction_of]
    if missing:
        raise ValueError(
            f'Expected a prediction of each image of {gt_json} in {pred_json}, but {len(missing)} '
            f'have none, such as {missing[:5]}')

    pairs = []
    for image_id, annotation in annotation_of.items():
        prediction = prediction_of[image_id]
        pairs.append(
            PanopticPair(
                image_id=image_id,
                gt_png=str(Path(gt_folder, annotation['file_name'])),
                pred_png=str(Path(pred_folder, prediction['file_name'])),
                gt_segments=_segments(annotation, _labels(annotation, label_of, gt_json)),
                pred_labels=_labels(prediction, label_of, pred_json)))
    return PanopticFiles(
        classes=[category['name'] for category in categories],
        is_thing=[bool(category['isthing']) for category in categories],
        category_ids=list(label_of),
        pairs=pairs,
        images={image['id']: image
                for image in gt.get('images', [])},
        unused=[image_id for image_id in prediction_of if image_id not in annotation_of])


def _things_first(categories: Sequence[Mapping], path: PathLike) -> List[Mapping]:
    without = [category['name'] for category in categories if 'isthing' not in category]
    if without:
        raise ValueError(f'Expected `isthing` in each category of {path}, but {without} lack it')
    return sorted(categories, key=lambda category: not category['isthing'])


def _load(path: PathLike, *keys: str) -> Dict[str, Any]:
    content = load(str(path))
    missing = [key for key in keys if not isinstance(content, dict) or key not in content]
    if missing:
        raise ValueError(f'Expected {path} to be in the COCO panoptic format, but it lacks {missing}')
    return content


def _by_image(annotations: Sequence[Mapping], path: PathLike) -> Dict[Any, Mapping]:
    of_image = {annotation['image_id']: annotation for annotation in annotations}
    if len(of_image) < len(annotations):
        seen = [annotation['image_id'] for annotation in annotations]
        double = next(image_id for image_id in of_image if seen.count(image_id) > 1)
        raise ValueError(f'Expected each image once in {path}, but there are several entries of {double!r}')
    return of_image


def _labels(annotation: Mapping, label_of: Mapping[int, int], path: PathLike) -> Dict[int, int]:
    """Label of each segment id of an entry of a JSON."""
    labels = {}
    for segment in annotation['segments_info']:
        where = f'the image {annotation["image_id"]!r} of {path} (PNG {annotation["file_name"]})'
        if segment['category_id'] not in label_of:
            raise ValueError(
                f'Expected the categories of the annotations, but segment {segment["id"]} of {where} '
                f'has the unknown category {segment["category_id"]}')
        if segment['id'] in labels or segment['id'] == VOID_ID:
            raise ValueError(f'Expected unique segment ids other than {VOID_ID}, but {where} has several '
                             f'segments {segment["id"]}, or that one is {VOID_ID}')
        labels[segment['id']] = label_of[segment['category_id']]
    return labels


def _segments(annotation: Mapping, labels: Mapping[int, int]) -> List[Dict[str, Any]]:
    return [
        dict(id=segment['id'], category=labels[segment['id']], iscrowd=bool(segment.get('iscrowd')))
        for segment in annotation['segments_info']
    ]
