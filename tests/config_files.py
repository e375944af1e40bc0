"""The configs by name, in groups."""
import re
from functools import lru_cache

from mmengine.config import Config

from tests.conftest import REPOSITORY

PATHS = {p.stem: p for p in sorted((REPOSITORY / 'configs').rglob('*.py')) if '_base_' not in p.parts}
OWN = [name for name in PATHS if not re.search('mask2?former', name)]
SCHEDULED = [name for name in OWN if '_8xb' in name]
PUBLISHED = [name for name in SCHEDULED if PATHS[name].parent.name != 'ablations']
MAX_DEEPLAB = [name for name in PUBLISHED if 'max-deeplab' in name]


@lru_cache(maxsize=None)
def read_config(name: str) -> Config:
    """A config that is not to be changed."""
    return Config.fromfile(PATHS[name])
