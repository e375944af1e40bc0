"""Who may import whom: the rooms of the package know only what stands to their left."""
import ast
import re
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / 'remax_mm'

# From left to right; a room imports from its own rank and from those before it.
MODEL_RANKS = (
    {'structures'},
    {'layers', 'relaxations', 'losses', 'task_modules'},
    {'backbones', 'pixel_decoders', 'transformer_decoders', 'data_preprocessors'},
    {'heads'},
    {'detectors'},
    {'test_time_augs'},
)
RANK = {room: rank for rank, rooms in enumerate(MODEL_RANKS) for room in rooms}
# Rooms beside the models, and the rooms that each may use besides itself.
OTHER_ROOMS = {
    'datasets': {'structures'},
    'evaluation': {'structures', 'datasets'},
    'visualization': {'structures', 'datasets', 'evaluation'},
    'engine': {'structures', 'models', 'visualization', 'deploy', 'analysis'},
    'apis': {'structures', 'datasets', 'evaluation', 'models', 'visualization', 'engine', 'deploy'},
    'deploy': {'structures', 'models'},
    'analysis': {'structures', 'models', 'datasets', 'evaluation', 'visualization'},
}


class Import(NamedTuple):
    file: Path
    line: int
    module: str

    def __str__(self) -> str:
        return f'{self.file.relative_to(REPOSITORY)}:{self.line} imports {self.module}'


def _python_files(*folders: Path) -> List[Path]:
    return sorted(file for folder in folders for file in folder.rglob('*.py'))


def _imports(file: Path) -> Iterator[Import]:
    """Absolute names of everything that a file imports, at its top or inside functions."""
    inside = file.relative_to(REPOSITORY).with_suffix('').parts
    for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'), str(file))):
        if isinstance(node, ast.Import):
            for alias in node.names:
                yield Import(file, node.lineno, alias.name)
        elif isinstance(node, ast.ImportFrom):
            base = '.'.join(inside[:-node.level]) + '.' if node.level else ''
            for alias in node.names:
                yield Import(file, node.lineno, f'{base}{node.module or ""}.{alias.name}'.replace('..', '.'))


def _room(module: str) -> str:
    """`losses` of `remax_mm.models.losses.pq_loss`, `datasets` of `remax_mm.datasets`."""
    parts = module.split('.')
    return parts[2] if parts[1] == 'models' and len(parts) > 2 else parts[1]


def _own_imports() -> Iterator[Import]:
    for file in _python_files(PACKAGE):
        if file.parent == PACKAGE or file == PACKAGE / 'models' / '__init__.py':
            continue  # these gather the rooms
        yield from (found for found in _imports(file) if found.module.startswith('remax_mm.'))


def _home(file: Path) -> str:
    return _room('.'.join(file.relative_to(REPOSITORY).with_suffix('').parts))


def test_imports__every_room_is_known() -> None:
    rooms = {path.parent.name for path in PACKAGE.glob('models/*/__init__.py')}
    assert rooms <= set(RANK), f'give {rooms - set(RANK)} a rank'
    rooms = {path.parent.name for path in PACKAGE.glob('*/__init__.py')} - {'models', 'structures'}
    assert rooms <= set(OTHER_ROOMS), f'say what {rooms - set(OTHER_ROOMS)} may import'


def test_imports__models_point_to_the_left() -> None:
    wrong = [
        str(found) for found in _own_imports()
        if _home(found.file) in RANK and RANK.get(_room(found.module), 99) > RANK[_home(found.file)]
    ]
    assert not wrong, '\n'.join(wrong)


def test_imports__rooms_of_a_rank_form_no_circle() -> None:
    uses: Dict[str, Set[str]] = {}
    for found in _own_imports():
        home, other = _home(found.file), _room(found.module)
        if home != other:
            uses.setdefault(home, set()).add(other)
    while uses:
        leaves = [room for room, others in uses.items() if not others & set(uses)]
        assert leaves, f'these rooms import each other in a circle: {uses}'
        for room in leaves:
            del uses[room]


def test_imports__rooms_beside_the_models() -> None:
    wrong = []
    for found in _own_imports():
        home, other = _home(found.file), _room(found.module)
        if home in OTHER_ROOMS and other != home:
            kind = 'models' if found.module.startswith('remax_mm.models') else other
            if kind not in OTHER_ROOMS[home] | {'version', 'compat'}:
                wrong.append(str(found))
    assert not wrong, '\n'.join(wrong)


def test_imports__public_names_of_the_host_only() -> None:
    hidden = re.compile(r'^(mmengine|mmcv|mmdet|mmseg)\..*\b_[a-z]')
    wrong = [str(found) for found in _imports_everywhere() if hidden.match(found.module)]
    assert not wrong, '\n'.join(wrong)


def _imports_everywhere() -> Iterator[Import]:
    for file in _python_files(PACKAGE, REPOSITORY / 'tools', REPOSITORY / 'demo'):
        yield from _imports(file)


def test_imports__nothing_is_looked_up_in_a_hub() -> None:
    # mmengine's hub installs a missing package by itself, and misses the forks' names; so do foreign bases.
    hub = re.compile(r'(mmengine|torch)\.hub')
    wrong = [str(found) for found in _imports_everywhere() if hub.match(found.module)]
    assert not wrong, '\n'.join(wrong)


@pytest.mark.parametrize('folder', ['remax_mm', 'configs', 'tools', 'demo'])
def test_imports__no_foreign_base_configs(folder: str) -> None:
    foreign = re.compile(r'''['"](mmseg|mmpretrain|mmcls|mmrotate)::''')
    wrong = [
        str(file.relative_to(REPOSITORY)) for file in _python_files(REPOSITORY / folder)
        if foreign.search(file.read_text(encoding='utf-8'))
    ]
    assert not wrong, '\n'.join(wrong)


def test_imports__only_compat_knows_the_stack() -> None:
    names = re.compile(r'onedl|mmcv-lite|mmcv\._ext|safe_globals')
    wrong = [
        str(file.relative_to(REPOSITORY)) for file in _python_files(PACKAGE)
        if file.name != 'compat.py' and names.search(file.read_text(encoding='utf-8'))
    ]
    assert not wrong, '\n'.join(wrong)
