"""Which package may import which other package."""
import ast
import json
import re
import subprocess
import sys
from pathlib import Path
from typing import Dict, Iterator, List, NamedTuple, Set, Tuple

import pytest

REPOSITORY = Path(__file__).resolve().parents[1]
PACKAGE = REPOSITORY / 'remax_mm'

# From left to right; a package imports from its own rank and from the ranks before it.
MODEL_RANKS = (
    {'panoptic_format', 'structures', 'inference_copy'},
    {'layers', 'relaxations', 'losses', 'task_modules'},
    {'backbones', 'pixel_decoders', 'transformer_decoders', 'data_preprocessors'},
    {'heads'},
    {'detectors'},
    {'test_time_augs'},
)
RANK = {package: rank for rank, packages in enumerate(MODEL_RANKS) for package in packages}
# Packages beside the models, and what each of them may import besides itself and the first rank.
FIRST = MODEL_RANKS[0]
OTHER_PACKAGES = {
    'datasets': FIRST,
    'evaluation': FIRST,
    'visualization': FIRST,
    'deploy': FIRST | {'models'},
    'engine': FIRST | {'models', 'visualization', 'deploy'},
    'configs': FIRST | {'datasets', 'evaluation', 'models', 'visualization', 'engine'},
    'apis': FIRST | {'datasets', 'evaluation', 'models', 'visualization', 'engine', 'deploy'},
    'analysis': FIRST | {'models'},
    'benchmarks': FIRST | {'models', 'datasets', 'evaluation', 'deploy', 'analysis', 'apis'},
    'model_converters': FIRST | {'models', 'datasets'},
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


def _package_of(module: str) -> str:
    """`losses` of `remax_mm.models.losses.pq_loss`, `datasets` of `remax_mm.datasets`."""
    parts = module.split('.')
    return parts[2] if parts[1] == 'models' and len(parts) > 2 else parts[1]


def _own_imports() -> Iterator[Import]:
    for file in _python_files(PACKAGE):
        if file.parent == PACKAGE or file == PACKAGE / 'models' / '__init__.py':
            continue  # these import all packages
        yield from (found for found in _imports(file) if found.module.startswith('remax_mm.'))


def _home(file: Path) -> str:
    return _package_of('.'.join(file.relative_to(REPOSITORY).with_suffix('').parts))


def test_imports__every_package_is_known() -> None:
    packages = {path.parent.name for path in PACKAGE.glob('models/*/__init__.py')}
    assert packages <= set(RANK), f'give {packages - set(RANK)} a rank'
    packages = {path.parent.name for path in PACKAGE.glob('*/__init__.py')} - {'models'} - set(RANK)
    assert packages <= set(OTHER_PACKAGES), f'state what {packages - set(OTHER_PACKAGES)} may import'


def test_imports__models_point_to_the_left() -> None:
    wrong = [
        str(found) for found in _own_imports()
        if _home(found.file) in RANK and RANK.get(_package_of(found.module), 99) > RANK[_home(found.file)]
    ]
    assert not wrong, '\n'.join(wrong)


def test_imports__packages_form_no_cycle() -> None:
    uses: Dict[str, Set[str]] = {}
    for found in _own_imports():
        home, other = _home(found.file), _package_of(found.module)
        if home != other:
            uses.setdefault(home, set()).add(other)
    while uses:
        leaves = [package for package, others in uses.items() if not others & set(uses)]
        assert leaves, f'these packages import each other in a cycle: {uses}'
        for package in leaves:
            del uses[package]


def test_imports__packages_beside_the_models() -> None:
    wrong = []
    for found in _own_imports():
        home, other = _home(found.file), _package_of(found.module)
        if home in OTHER_PACKAGES and other != home:
            kind = 'models' if found.module.startswith('remax_mm.models') else other
            if kind not in OTHER_PACKAGES[home] | {'version', 'compat', 'checkpoint_loading', 'model_names'}:
                wrong.append(str(found))
    assert not wrong, '\n'.join(wrong)


def _print_after(code: str, *arguments: str) -> str:
    """What a new process prints at the end of the code."""
    done = subprocess.run([sys.executable, '-c', code, *arguments],
                          stdout=subprocess.PIPE,
                          text=True,
                          check=True)
    return done.stdout.strip().splitlines()[-1]


def test_imports__package_imports_nothing_heavy() -> None:
    loaded = set(_print_after('import sys, remax_mm; print(*sys.modules)').split())
    assert 'remax_mm.compat' in loaded
    assert not loaded & {
        'torch', 'numpy', 'mmengine', 'mmcv', 'mmdet', 'mmseg', 'scipy', 'matplotlib', 'pandas'
    }


def _registered() -> Iterator[Tuple[str, str]]:
    """Registry and name of each registered class or function of the package."""
    for file in _python_files(PACKAGE):
        for node in ast.walk(ast.parse(file.read_text(encoding='utf-8'))):
            if not isinstance(node, (ast.ClassDef, ast.FunctionDef)):
                continue
            for decorator in node.decorator_list:
                match = re.match(r'([A-Z_]+)\.register_module\(\)', ast.unparse(decorator))
                if match:
                    yield match[1], node.name


LOOK_UP = '''
import json, sys
import remax_mm
from mmdet import registry
from mmengine.infer import BaseInferencer
from mmengine.runner import CheckpointLoader

missing = [name for kind, name in json.loads(sys.argv[1]) if getattr(registry, kind).get(name) is None]
guarded = (CheckpointLoader.load_checkpoint, BaseInferencer._init_model)
print(json.dumps(dict(missing=missing, guards=[f.__module__ for f in guarded], loaded=list(sys.modules))))
'''


def test_imports__host_packages_get_what_they_need_when_they_are_imported() -> None:
    registered = list(_registered())
    assert len(registered) > 60
    found = json.loads(_print_after(LOOK_UP, json.dumps(registered)))
    assert not found['missing']
    assert found['guards'] == ['remax_mm.checkpoint_loading'] * 2
    # torch 2.0 lacks torch.utils.flop_counter, which only the analysis needs.
    assert 'remax_mm.engine' in found['loaded']
    assert not [
        name for name in found['loaded'] if 'flop_counter' in name or name.startswith('remax_mm.analysis')
    ]


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


def test_imports__two_files_know_the_stack() -> None:
    names = re.compile(r'onedl|mmcv-lite|mmcv\._ext|safe_globals')
    files = {file.name for file in _python_files(PACKAGE) if names.search(file.read_text(encoding='utf-8'))}
    assert files <= {'compat.py', 'checkpoint_loading.py'}
