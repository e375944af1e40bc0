"""JSON files of the VGG Image Annotator (https://www.robots.ox.ac.uk/~vgg/software/via), version 1 and 2."""
from pathlib import Path
from typing import Any, Dict, List, Optional, Tuple, Union

from pydantic import ConfigDict, with_config
from typing_extensions import TypedDict

from .annotation_files import read_json, relative_name
from .shapes import Shape, ShapedPhoto, box_polygon, circle_polygon

_keep_other_keys = with_config(ConfigDict(extra='ignore'))


@_keep_other_keys
class ViaRegion(TypedDict):
    """Entry of ``regions``."""
    shape_attributes: Dict[str, Any]
    region_attributes: Dict[str, Any]


@_keep_other_keys
class ViaPhoto(TypedDict):
    """Entry of a photo; version 1 has a dict of regions."""
    filename: str
    regions: Union[List[ViaRegion], Dict[str, ViaRegion]]


@_keep_other_keys
class ViaProject(TypedDict):
    """A saved project; an export of the annotations has the metadata alone."""
    _via_img_metadata: Dict[str, ViaPhoto]


def read_via(path: Path, label_attribute: Optional[str] = None) -> List[ShapedPhoto]:
    """Read a saved project or an export of the annotations as JSON.

    Args:
        path: The file.
        label_attribute: Region attribute with the class. None takes the only one.

    Raises:
        ValueError: the file has another content, or a region has no class or is no area.
    """
    what = 'annotations of the VGG Image Annotator'
    content = read_json(path, Dict[str, Any], what)
    if '_via_img_metadata' in content:
        entries = read_json(path, ViaProject, what)['_via_img_metadata']
    else:
        entries = read_json(path, Dict[str, ViaPhoto], what)
    photos = []
    for entry in entries.values():
        regions = entry['regions']
        regions = list(regions.values()) if isinstance(regions, dict) else regions
        shapes = []
        for number, region in enumerate(regions):
            where = f'region {number}'
            try:
                label = _label_of(region['region_attributes'], label_attribute)
                shapes.append(Shape(where, label, [_polygon(region['shape_attributes'])]))
            except ValueError as error:
                raise ValueError(f'{path}, {where} of {entry["filename"]}: {error}') from None
        photos.append(ShapedPhoto(path, relative_name(entry['filename'], path), None, shapes))
    return photos


def _label_of(attributes: Dict[str, Any], name: Optional[str]) -> str:
    """The class of a region: a text, or the only box that is checked."""
    if name is None:
        if len(attributes) != 1:
            raise ValueError(f'Expected one region attribute, the class, but got {list(attributes)}; '
                             '--label-attribute names it')
        name, = attributes
    value = attributes.get(name)
    if isinstance(value, dict):
        checked = [key for key, is_checked in value.items() if is_checked in (True, 'true')]
        value = checked[0] if len(checked) == 1 else None
    if not isinstance(value, str) or not value:
        raise ValueError(f'Expected one class as the attribute {name!r}, but got {attributes.get(name)!r}')
    return value


def _polygon(shape: Dict[str, Any]) -> List[float]:
    """Polygon of an area, [x1, y1, ...]."""
    kind = shape.get('name')
    areas: Dict[str, Tuple[str, ...]] = dict(
        polygon=('all_points_x', 'all_points_y'),
        rect=('x', 'y', 'width', 'height'),
        circle=('cx', 'cy', 'r'),
        ellipse=('cx', 'cy', 'rx', 'ry'))
    keys = areas.get(str(kind))
    if keys is None:
        raise ValueError(f'Expected a polygon, rect, circle or ellipse, but got {kind}')
    values: List[Any] = [shape.get(key) for key in keys]
    if kind == 'polygon':
        xs, ys = values
        if not _are_numbers(xs) or not _are_numbers(ys) or len(xs) != len(ys):
            raise ValueError(f'Expected as many numbers in {keys[0]} as in {keys[1]}')
        return [value for point in zip(xs, ys) for value in point]
    if not _are_numbers(values):
        raise ValueError(f'Expected numbers as {", ".join(keys)}, but got {values}')
    if kind == 'rect':
        x, y, width, height = values
        return box_polygon(x, y, x + width, y + height)
    if kind == 'circle':
        return circle_polygon(values[0], values[1], values[2], values[2])
    theta = shape.get('theta', 0)
    x, y, radius_x, radius_y = values
    return circle_polygon(x, y, radius_x, radius_y, theta if _are_numbers([theta]) else 0)


def _are_numbers(values: Any) -> bool:
    return isinstance(values, list) and all(
        isinstance(value, (int, float)) and not isinstance(value, bool) and abs(value) < 2**31
        for value in values)
