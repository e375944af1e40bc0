"""Misspelled keys of a config, which mmengine ignores or reports late."""
import difflib
import inspect
from typing import Any, Iterator, List, Mapping, Optional, Sequence, Set, Tuple

from mmdet.registry import HOOKS
from mmengine.config import Config
from mmengine.hooks import CheckpointHook
from mmengine.registry import DefaultScope
from mmengine.runner import Runner

_OTHER_KEYS = ('auto_scale_lr', 'tta_model', 'tta_pipeline', 'custom_imports', 'runner_type')
"""Keys that tools and mmengine read, besides the arguments of the runner."""

_VARIABLES = ('train_pipeline', 'val_pipeline', 'test_pipeline')
"""Usual variables that resemble such keys."""

RENAMED_KEYS = {
    'resume_from': 'resume',
    'lr_config': 'param_scheduler',
    'optimizer_config': 'optim_wrapper',
    'checkpoint_config': 'default_hooks.checkpoint',
    'log_config': 'default_hooks.logger',
    'evaluation': 'val_evaluator',
    'total_epochs': 'train_cfg.max_epochs',
}
"""Keys of MMDetection 2, which mmengine ignores, and their successors."""

DEFAULT_HOOKS = ('runtime_info', 'timer', 'sampler_seed', 'logger', 'param_scheduler', 'checkpoint',
                 'visualization')
_HOOK_KEYS = ('type', 'priority', '_scope_')
_MIN_SIMILARITY = 0.7  # of a misspelled word, as difflib measures it


def check_config_keys(config: Config) -> None:
    """Check the names of top-level keys, of the default hooks and of the arguments of hooks.

    A config may have any variable of its own, so a top-level key is wrong only if each of its words resembles
    that of a known key, as in ``trian_cfg``.

    Raises:
        ValueError: a key is unknown; the message has all such keys, and the nearest known ones.
    """
    messages = [
        *_find_top_level(config), *_find_misspelled('default_hooks',
                                                    config.get('default_hooks') or {}, DEFAULT_HOOKS)
    ]
    for place, hook in _list_hooks(config):
        messages += _find_hook_arguments(place, hook, config.get('default_scope', 'mmdet'))
    if messages:
        raise ValueError(f'Expected known keys in the config {config.filename or ""}, but got ' +
                         '; '.join(messages))


def _find_top_level(config: Config) -> List[str]:
    known = {*_runner_keys(), *_OTHER_KEYS}
    messages = []
    for key in config:
        if key in known or key in _VARIABLES:
            continue
        nearest = _nearest(key, [name for name in (*known, *RENAMED_KEYS) if _is_misspelled(key, name)], 0.)
        if nearest is not None:
            messages.append(f'`{key}`, did you mean `{RENAMED_KEYS.get(nearest, nearest)}`?')
    return messages


def _runner_keys() -> Set[str]:
    return set(inspect.signature(Runner.__init__).parameters) - {'self', 'cfg'}


def _find_misspelled(place: str, found: Mapping[str, Any], known: Sequence[str]) -> List[str]:
    nearest = {
        key: _nearest(key, [name for name in known if _is_misspelled(key, name)], 0.)
        for key in found if key not in known
    }
    return [f'`{place}.{key}`, did you mean `{place}.{name}`?' for key, name in nearest.items() if name]


def _list_hooks(config: Config) -> Iterator[Tuple[str, Mapping[str, Any]]]:
    """Place in the config and settings of each hook."""
    for name, hook in (config.get('default_hooks') or {}).items():
        yield f'default_hooks.{name}', hook
    for index, hook in enumerate(config.get('custom_hooks') or ()):
        yield f'custom_hooks[{index}]', hook


def _find_hook_arguments(place: str, hook: Any, scope: str) -> List[str]:
    """Arguments that no constructor of the hook names.

    A hook may pass its ``**kwargs`` on to something else; of such arguments, only those that resemble a known
    one are wrong. CheckpointHook uses its own only for the first checkpoint, hours after the start.
    """
    if not isinstance(hook, Mapping) or 'type' not in hook:
        return []
    with DefaultScope.overwrite_default_scope(scope):
        hook_class = HOOKS.get(hook['type']) if isinstance(hook['type'], str) else hook['type']
    if hook_class is None:  # the registry names it when the runner is built
        return []
    parameters = [
        parameter for parent in hook_class.__mro__[:-1] if '__init__' in vars(parent)
        for parameter in inspect.signature(parent.__init__).parameters.values() if parameter.name != 'self'
    ]
    known = {
        *_HOOK_KEYS, *(parameter.name for parameter in parameters if parameter.kind != parameter.VAR_KEYWORD)
    }
    passes_on = any(parameter.kind == parameter.VAR_KEYWORD for parameter in parameters)
    is_open = passes_on and not issubclass(hook_class, CheckpointHook)
    messages = []
    for key in set(hook) - known:
        nearest = _nearest(key, sorted(known), _MIN_SIMILARITY if is_open else 0.)
        if nearest is not None or not is_open:
            messages.append(f'`{place}.{key}` of {hook_class.__name__}, did you mean `{nearest}`?')
    return sorted(messages)


def _is_misspelled(key: str, known: str) -> bool:
    """Whether all words of a key resemble those of a known key, or only underscores differ."""
    if key.replace('_', '') == known.replace('_', ''):
        return True
    pairs = list(zip(key.split('_'), known.split('_')))
    return len(key.split('_')) == len(known.split('_')) and all(
        difflib.SequenceMatcher(None, word, other).ratio() >= _MIN_SIMILARITY for word, other in pairs)


def _nearest(key: str, known: Sequence[str], min_similarity: float) -> Optional[str]:
    return next(iter(difflib.get_close_matches(key, known, 1, min_similarity)), None)
