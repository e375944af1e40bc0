"""The config inside a published model is data: it can only name parts of models, by their registered names.

A registry imports whatever a ``type`` names, ``os.system`` as well as ``ResNet``. So the names are compared
with a list before a registry sees them, and the values are literals of JSON.
"""
import math
from typing import Any, Dict, Iterator, List, Mapping, NamedTuple, Sequence, Tuple

from mmdet.registry import MODELS, TASK_UTILS
from mmdet.utils import get_test_pipeline_cfg
from mmengine.config import Config

from .run_config import loads_annotation

FORMAT = 1
"""Version of the data; a reader refuses any other one."""

HOST_TYPES = frozenset({
    'BN', 'BatchFixedSizePad', 'ClassificationCost', 'CrossEntropyLoss', 'CrossEntropyLossCost',
    'DetDataPreprocessor', 'DiceCost', 'DiceLoss', 'FocalLoss', 'FocalLossCost', 'GELU', 'GN',
    'HungarianAssigner', 'LN', 'MSDeformAttnPixelDecoder', 'Mask2Former', 'Mask2FormerHead', 'MaskFormer',
    'MaskFormerFusionHead', 'MaskFormerHead', 'MaskPseudoSampler', 'ReLU', 'ResNet', 'SwinTransformer',
    'SyncBN', 'TransformerEncoderPixelDecoder'
})
"""Parts of models from torch, mmcv and mmdet. They read no file and download nothing without ``init_cfg``."""

TRANSFORM_TYPES = frozenset({
    'LoadImageFromFile', 'PackDetInputs', 'PackPanopticInputs', 'Pad', 'RandomFlip', 'Resize', 'TestTimeAug'
})

_DROPPED = ('init_cfg', 'pretrained', '_scope_')
"""Keys that a published config never has: sources of weights, and the package that a name is looked up in."""

_OWN_SCOPES = ('mmdet.', 'remax_mm.')
_TUPLE = '__tuple__'  # JSON has no tuples, and some transforms refuse lists
_MAX_DEPTH, _MAX_VALUES, _MAX_NUMBER = 32, 50_000, 100_000
_CLASS_LISTS = ('classes', 'thing_classes', 'stuff_classes')


class PublishedConfig(NamedTuple):
    """What a published model says about itself.

    Attributes:
        config: The model and its test pipeline.
        dataset_meta: ``classes``, ``thing_classes``, ``stuff_classes``, and ``palette`` if it has one.
    """
    config: Config
    dataset_meta: Dict[str, Any]


def encode_config(config: Config, dataset_meta: Mapping[str, Any]) -> Dict[str, Any]:
    """The parts of a config that inference needs, as data for :func:`decode_config`.

    Raises:
        ValueError: the config has parts or values that :func:`decode_config` would refuse.
    """
    steps = [step for step in get_test_pipeline_cfg(config) if not loads_annotation(step)]
    steps[0] = dict(type='LoadImageFromFile', to_float32=steps[0].get('to_float32', False))
    data = dict(
        format=FORMAT,
        model=_encode(config.model),
        pipeline=_encode(steps),
        dataset_meta={
            key: _encode(dataset_meta[key])
            for key in (*_CLASS_LISTS, 'palette') if isinstance(dataset_meta.get(key), (list, tuple))
        })
    decode_config(data, 'the config')
    return data


def decode_config(data: Any, source: str) -> PublishedConfig:
    """Check the data of a published model and make a config of it.

    Args:
        data: Anything that JSON can hold, of any origin.
        source: The file, for error messages.

    Raises:
        ValueError: the data is not what :func:`encode_config` returns, names a part that is not in the lists
            above or not registered by ``remax_mm.models``, or has values out of bounds.
    """
    expected = {'format', 'model', 'pipeline', 'dataset_meta'}
    if not isinstance(data, dict) or set(data) != expected or data['format'] != FORMAT:
        raise ValueError(f'Expected {source} to have the keys {sorted(expected)} in format {FORMAT}, but it '
                         'has other content')
    is_pipeline = isinstance(data['pipeline'], list) and data['pipeline'] and all(
        isinstance(step, dict) and 'type' in step for step in data['pipeline'])
    if not (isinstance(data['model'], dict) and is_pipeline and isinstance(data['dataset_meta'], dict)):
        raise ValueError(f'Expected {source} to have a model, a list of transforms and classes, but it has '
                         'other content')
    _check_values(data, source)
    _check_types(data['model'], _is_model_part, source)
    _check_types(data['pipeline'], TRANSFORM_TYPES.__contains__, source)
    meta = _check_classes(data['dataset_meta'], source)
    no_files = dict(type='CocoPanopticMapDataset', ann_file='', data_prefix=dict(img=''), test_mode=True)
    dataset = dict(no_files, metainfo=meta, pipeline=_decode(data['pipeline']))
    config = dict(default_scope='mmdet', model=_decode(data['model']), test_dataloader=dict(dataset=dataset))
    return PublishedConfig(Config(config), meta)


def _encode(value: Any) -> Any:
    """Literals as JSON has them; registered classes become their names."""
    if isinstance(value, Mapping):
        return {
            str(key): _type_name(item) if key == 'type' else _encode(item)
            for key, item in value.items() if key not in _DROPPED
        }
    if isinstance(value, tuple):
        return {_TUPLE: [_encode(item) for item in value]}
    if isinstance(value, list):
        return [_encode(item) for item in value]
    if value is None or isinstance(value, (bool, int, float, str)):
        return value
    raise ValueError(f'Expected literals in the config of a published model, but got {value!r}')


def _type_name(kind: Any) -> str:
    name = kind if isinstance(kind, str) else kind.__name__
    return next((name[len(scope):] for scope in _OWN_SCOPES if name.startswith(scope)), name)


def _decode(value: Any) -> Any:
    if isinstance(value, dict):
        if _TUPLE in value:
            return tuple(_decode(item) for item in value[_TUPLE])
        return {key: _decode(item) for key, item in value.items()}
    return [_decode(item) for item in value] if isinstance(value, list) else value


def _check_values(data: Any, source: str) -> None:
    """Bound the depth, the number of values and the numbers, and refuse keys that are looked up elsewhere."""
    for count, (value, depth) in enumerate(_walk(data)):
        if count > _MAX_VALUES or depth > _MAX_DEPTH:
            raise ValueError(f'Expected at most {_MAX_VALUES} values in {_MAX_DEPTH} levels in {source}, but '
                             'there are more')
        if isinstance(value, dict):
            refused = [key for key in value if key in _DROPPED]
            if refused:
                raise ValueError(
                    f'Expected {source} to name no source of weights or code, but it has {refused}')
            if _TUPLE in value and (len(value) > 1 or not isinstance(value[_TUPLE], list)):
                raise ValueError(f'Expected `{_TUPLE}` in {source} to be a list alone, but got {value!r:.80}')
        elif isinstance(value, (int, float)) and not (math.isfinite(value) and abs(value) <= _MAX_NUMBER):
            raise ValueError(f'Expected numbers up to {_MAX_NUMBER} in {source}, but got {value!r:.80}')


def _walk(value: Any) -> Iterator[Tuple[Any, int]]:
    """All values inside a value, with their depths; no recursion, which a deep value could exhaust."""
    open_values: List[Tuple[Any, int]] = [(value, 0)]
    while open_values:
        value, depth = open_values.pop()
        yield value, depth
        inner: Sequence = ()
        if isinstance(value, (dict, list)):
            inner = list(value.values()) if isinstance(value, dict) else value
        open_values += [(item, depth + 1) for item in inner]


def _check_types(data: Any, is_allowed: Any, source: str) -> None:
    for value, _ in _walk(data):
        if isinstance(value, dict) and 'type' in value:
            kind = value['type']
            if not (isinstance(kind, str) and is_allowed(kind)):
                raise ValueError(
                    f'Expected {source} to consist of parts of remax_mm and those of mmdet that it '
                    f'uses, but it has the type {kind!r:.80}, which is not loaded from a file')


def _is_model_part(name: str) -> bool:
    """Whether a name is in the list of host parts, or was registered by the models of this package."""
    # Not `registry.get`, which imports a name that it does not know.
    registered = [
        registry.module_dict[name] for registry in (MODELS, TASK_UTILS) if name in registry.module_dict
    ]
    return name in HOST_TYPES or any(part.__module__.startswith('remax_mm.models.') for part in registered)


def _check_classes(meta: Mapping[str, Any], source: str) -> Dict[str, Any]:
    """The names of the classes and their colors."""
    checked = {key: _decode(value) for key, value in meta.items()}
    names = {key: checked.get(key) for key in _CLASS_LISTS}
    for key, value in names.items():
        if not isinstance(value, (list, tuple)) or not all(isinstance(name, str) for name in value):
            raise ValueError(f'Expected the `{key}` of {source} to be a list of names, but got {value!r:.80}')
    things, stuff = checked['thing_classes'], checked['stuff_classes']
    if not names['classes'] or sorted(checked['classes']) != sorted([*things, *stuff]):
        raise ValueError(
            f'Expected the classes of {source} to be its thing and stuff classes, but they differ')
    palette = checked.get('palette')
    if palette is not None and not _is_palette(palette, len(checked['classes'])):
        raise ValueError(
            f'Expected a color (red, green, blue) from 0 to 255 for each class of {source}, but got '
            f'{palette!r:.80}')
    return {key: value for key, value in checked.items() if key in (*_CLASS_LISTS, 'palette')}


def _is_palette(palette: Any, number: int) -> bool:
    return (isinstance(palette, (list, tuple)) and len(palette) >= number and all(
        isinstance(color, (list, tuple)) and len(color) == 3 and all(
            type(channel) is int and 0 <= channel <= 255 for channel in color) for color in palette))
