"""The shipped configs by name. A checkout has them in ``configs``, an installed wheel in ``.mim``."""
import difflib
import fnmatch
from pathlib import Path
from typing import Dict, List

PACKAGE = Path(__file__).resolve().parent

SHORT_NAMES = {
    'remax-t': 'remax-t_mnv3-s_8xb8-150k_coco-641',
    'remax-s': 'remax-s_mnv3-l_8xb8-150k_coco-641',
    'remax-m': 'remax-m_r50_8xb8-150k_coco-641',
    'remax-b': 'remax-b_r50_8xb8-200k_coco-1281',
    'remax-convnext-t': 'remax_convnext-t_8xb8-150k_coco-1281',
    'remax-convnext-s': 'remax_convnext-s_8xb8-150k_coco-1281',
    'kmax-r50': 'kmax_r50_8xb8-150k_coco-1281',
    'kmax-convnext-t': 'kmax_convnext-t_8xb8-150k_coco-1281',
    'kmax-convnext-s': 'kmax_convnext-s_8xb8-150k_coco-1281',
    'max-deeplab-s': 'max-deeplab-s_8xb8-400k_coco-1025',
    'max-deeplab-l': 'max-deeplab-l_8xb8-400k_coco-1025',
    'mask2former': 'mask2former_r50_8xb2-lsj-50e_coco-panoptic',
    'maskformer': 'maskformer_r50_ms-16xb1-75e_coco',
    'remax-mini': 'remax_mnv3-s_1xb8-1k_mini-129',
}
"""Short names of the models of the papers; of several schedules, the one with the highest published PQ."""


def list_models(pattern: str = '*') -> List[str]:
    """Names of all models, sorted: the names of the config files without suffix, and the short names.

    Args:
        pattern: Only names that match it, such as ``'remax*cityscapes*'``.
    """
    return fnmatch.filter(sorted({*_config_files(), *SHORT_NAMES}), pattern)


def find_config(name: str) -> Path:
    """The config file of a model.

    Raises:
        FileNotFoundError: there is no model of this name; the message has the most similar names.
    """
    files = _config_files()
    path = files.get(SHORT_NAMES.get(name, name))
    if path is None:
        similar = difflib.get_close_matches(name, [*SHORT_NAMES, *files], n=3)
        hint = f'; did you mean {" or ".join(similar)}?' if similar else ', see remax_mm.list_models()'
        raise FileNotFoundError(
            f'Expected a config file at {name}, or a model of this name, but there is neither{hint}')
    return path


def _config_files() -> Dict[str, Path]:
    """All configs by file name without suffix, except for the parts that they share."""
    files = sorted(_config_folder().rglob('*.py'))
    return {file.stem: file for file in files if '_base_' not in file.parts}


def _config_folder() -> Path:
    for folder in (PACKAGE / '.mim' / 'configs', PACKAGE.parent / 'configs'):
        if (folder / '_base_').is_dir():
            return folder.resolve()  # a link in an editable installation
    raise FileNotFoundError(
        f'Expected the configs in {PACKAGE / ".mim"} or beside {PACKAGE}, but there are none')
