"""Defects of a panoptic dataset: the kinds, and one error for all that stop training or evaluation."""
from typing import Dict, NamedTuple, Sequence


class Kind(NamedTuple):
    """A kind of defect: whether it breaks training or evaluation, and its description."""
    is_error: bool
    meaning: str


KINDS: Dict[str, Kind] = {
    'json_invalid': Kind(True, 'a file that is not JSON'),
    'key_missing': Kind(True, 'an entry of the JSON without a required key; the entry is skipped'),
    'value_invalid': Kind(True, 'a value of a wrong type or out of range in the JSON; the entry is skipped'),
    'isthing_missing': Kind(True, 'a category whose `isthing` is missing, or is not 0 or 1'),
    'category_repeated': Kind(True, 'several categories with the same id or the same name'),
    'isthing_differs': Kind(True, 'a thing of the JSON that is stuff in the class list, or the reverse'),
    'classes_differ': Kind(True, 'categories that are not in the class list, or the reverse'),
    'image_id_repeated': Kind(True, 'several images with the same id'),
    'annotation_repeated': Kind(True, 'several annotations of the same image'),
    'file_repeated': Kind(True, 'several images or annotations with the same file'),
    'annotation_without_image': Kind(False, 'an annotation of an image that is not in the JSON'),
    'image_without_annotation': Kind(True, 'an image without an annotation'),
    'category_unknown': Kind(True, 'a segment with a category that is not in the JSON'),
    'segment_id_repeated': Kind(True, 'several segments of an image with the same id'),
    'segment_id_invalid': Kind(True, 'a segment id that is not in 1 to 256^3 - 1; the entry is skipped'),
    'image_missing': Kind(True, 'an image file that does not exist'),
    'image_broken': Kind(True, 'an image file that cannot be decoded, or is damaged'),
    'png_missing': Kind(True, 'a panoptic PNG that does not exist'),
    'png_broken': Kind(True, 'a panoptic PNG that cannot be decoded, or is damaged'),
    'size_differs': Kind(True, 'an image, PNG and JSON with different sizes'),
    'segment_unlisted': Kind(True, 'pixels with a segment id that is not in the JSON'),
    'segment_empty': Kind(True, 'a segment of the JSON without a pixel in the PNG'),
    'area_wrong': Kind(True, 'an `area` that is not the number of pixels in the PNG'),
    'bbox_wrong': Kind(False, 'a `bbox` that is not the bounding box of the pixels in the PNG'),
    'stuff_repeated': Kind(False,
                           'several segments of a stuff class in an image; perhaps the class is a thing'),
    'stuff_is_crowd': Kind(False, 'a crowd region of a stuff class; its pixels are void'),
    'all_void': Kind(False, 'an image without any segment except crowd regions'),
    'file_unused': Kind(False, 'a PNG that is not in the JSON'),
}


class Finding(NamedTuple):
    """One defect: its kind (a key of ``KINDS``), the file, and details."""
    kind: str
    file: str
    message: str


def raise_errors(findings: Sequence[Finding], path: str, most: int = 5) -> None:
    """Raise ValueError with the first ``most`` errors among the findings in a file; notes are no errors."""
    errors = [finding for finding in findings if KINDS[finding.kind].is_error]
    if errors:
        lines = [f'  {error.kind}: {error.message}' for error in errors[:most]]
        if len(errors) > most:
            lines.append(f'  and {len(errors) - most} more; tools/analysis_tools/check_panoptic_dataset.py '
                         'lists all of a dataset')
        count = 'an error' if len(errors) == 1 else f'{len(errors)} errors'
        raise ValueError(f'Expected the COCO panoptic format in {path}, but it has {count}:\n' +
                         '\n'.join(lines))
