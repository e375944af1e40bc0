"""Checks across the entries of a panoptic JSON: ids and files that are unique, and ids that exist."""
from collections import Counter
from typing import Any, Collection, Dict, Hashable, Iterable, List, Mapping, Optional, Sequence

from .annotation_schema import AnnotationContent
from .findings import Finding

_UNIQUE = (
    ('categories', 'id', 'category_repeated'),
    ('categories', 'name', 'category_repeated'),
    ('images', 'id', 'image_id_repeated'),
    ('images', 'file_name', 'file_repeated'),
    ('annotations', 'image_id', 'annotation_repeated'),
    ('annotations', 'file_name', 'file_repeated'),
)


def check_entries(annotations: AnnotationContent,
                  path: str,
                  category_ids: Collection[int] = (),
                  all_annotated: bool = True) -> List[Finding]:
    """Check the valid entries of a dataset: unique ids, names and files, known categories.

    Args:
        annotations: Content of the file; an id of a skipped entry counts as known.
        path: The file.
        category_ids: Known categories that are not in the file; predictions have none of their own.
        all_annotated: Whether each image must have an annotation.
    """
    content, skipped = annotations.content, annotations.skipped
    findings = []
    for name, key, kind in _UNIQUE:
        values = (entry[key] for entry in content.get(name, ()) if key in entry)
        findings += [
            Finding(kind, path, f'{count} entries of `{name}` have the {key} {value!r}')
            for value, count in _count_repeated(values).items()
        ]
    if all_annotated:
        findings += _check_one_to_one(content['images'], content['annotations'], skipped, path)
    known = {category['id'] for category in content.get('categories', ())}
    known.update(skipped['categories'], category_ids)
    # Without any valid category, the finding is that one.
    return findings + check_segments(content.get('annotations', ()), known or None, path)


def check_segments(annotations: Sequence[Mapping], category_ids: Optional[Collection[int]],
                   path: str) -> List[Finding]:
    """Check that the segment ids of an image differ, and that their categories are known.

    Args:
        annotations: Valid entries of ``annotations``.
        category_ids: Known categories; None accepts any.
        path: The file.
    """
    findings = []
    for annotation in annotations:
        segments = annotation['segments_info']
        if len({segment['id'] for segment in segments}) < len(segments):
            for segment_id, count in _count_repeated(segment['id'] for segment in segments).items():
                message = f'{count} segments of {describe_image(annotation)} have the id {segment_id}'
                findings.append(Finding('segment_id_repeated', path, message))
        for segment in segments:
            if category_ids is not None and segment['category_id'] not in category_ids:
                message = (
                    f'segment {segment["id"]} of {describe_image(annotation)} has the unknown category '
                    f'{segment["category_id"]}')
                findings.append(Finding('category_unknown', path, message))
    return findings


def describe_image(annotation: Mapping) -> str:
    """The image of an entry of ``annotations``, for messages."""
    return f'image {annotation["image_id"]!r} ({annotation.get("file_name", "no file name")})'


def _check_one_to_one(images: Sequence[Mapping], annotations: Sequence[Mapping],
                      skipped: Mapping[str, Collection[Any]], path: str) -> List[Finding]:
    """Check that each image has an annotation, and each annotation an image."""
    image_ids = {image['id'] for image in images} | set(skipped['images'])
    annotated = {annotation['image_id'] for annotation in annotations} | set(skipped['annotations'])
    return [
        *(Finding('annotation_without_image', path, f'annotation of {describe_image(annotation)}')
          for annotation in annotations if annotation['image_id'] not in image_ids),
        *(Finding('image_without_annotation', path, f'image {image["id"]!r} ({image["file_name"]})')
          for image in images if image['id'] not in annotated),
    ]


def _count_repeated(values: Iterable[Hashable]) -> Dict[Any, int]:
    return {value: count for value, count in Counter(values).items() if count > 1}
