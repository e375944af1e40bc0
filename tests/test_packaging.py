"""Metadata of the package, its requirements, the metafiles, and the content of the distributions."""
import ast
import configparser
import importlib.util
import os
import re
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile
from pathlib import Path

import pytest
import yaml
from mmdet.registry import DATASETS
from mmengine.config import Config
from mmengine.hub import get_config
from mmengine.infer import BaseInferencer
from mmengine.registry import DefaultScope
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name

import remax_mm
from remax_mm import compat
from tests.config_files import PATHS
from tests.conftest import REPOSITORY


@pytest.fixture(scope='module')
def setup_cfg() -> configparser.ConfigParser:
    parser = configparser.ConfigParser()
    parser.read(REPOSITORY / 'setup.cfg', encoding='utf-8')
    return parser


def _requirements(text: str) -> dict:
    lines = [line.strip() for line in text.splitlines()]
    requirements = [Requirement(line) for line in lines if line and not line.startswith('#')]
    return {requirement.name: requirement for requirement in requirements}


def test_extras__parse(setup_cfg: configparser.ConfigParser) -> None:
    extras = dict(setup_cfg['options.extras_require'])
    assert {'openmmlab', 'onedl', 'tools', 'dev'} <= set(extras)
    for text in extras.values():
        assert _requirements(text)


def test_extras__tests_have_the_packages_of_onnx(setup_cfg: configparser.ConfigParser) -> None:
    extras = setup_cfg['options.extras_require']
    assert _requirements(extras['onnx']).items() <= _requirements(extras['dev']).items()


def test_extras__stacks_do_not_mix(setup_cfg: configparser.ConfigParser) -> None:
    host = {name for candidates in compat.HOST_DISTRIBUTIONS.values() for name, _ in candidates}
    extras = {name: set(_requirements(text)) for name, text in setup_cfg['options.extras_require'].items()}

    # Requirements that are always installed must not choose the stack.
    assert not host & set(_requirements(setup_cfg['options']['install_requires']))
    assert not any(name.startswith('onedl') for name in extras['openmmlab'])
    assert {name for name in extras['onedl'] if name in host} == {name for name in host if 'onedl' in name}


@pytest.mark.parametrize('extra', ['openmmlab', 'onedl'])
def test_extras__agree_with_compat(extra: str, setup_cfg: configparser.ConfigParser) -> None:
    floors = dict(candidate for candidates in compat.HOST_DISTRIBUTIONS.values() for candidate in candidates)
    for name, requirement in _requirements(setup_cfg['options.extras_require'][extra]).items():
        if name in floors:
            lowest = min(clause.version for clause in requirement.specifier if clause.operator == '>=')
            assert requirement.specifier.contains(floors[name]) and floors[name].startswith(lowest), name


def test_makefile__extras_allow_the_pinned_versions(setup_cfg: configparser.ConfigParser) -> None:
    allowed = {}
    for extra in ('openmmlab', 'onedl'):
        allowed.update(_requirements(setup_cfg['options.extras_require'][extra]))
    pins = [
        Requirement(word) for word in (REPOSITORY / 'Makefile').read_text().split()
        if word[0].isalpha() and '==' in word
    ]
    checked = [pin for pin in pins if pin.name in allowed]
    assert len(checked) >= 7
    for pin in checked:
        version, = (clause.version for clause in pin.specifier)
        assert allowed[pin.name].specifier.contains(version), pin


def test_version__is_in_the_changelog() -> None:
    assert f'## [{remax_mm.__version__}]' in (REPOSITORY / 'CHANGELOG.md').read_text(encoding='utf-8')


DISTRIBUTIONS = dict(cv2='opencv-python', PIL='Pillow', yaml='PyYAML')


def test_requirements__of_all_direct_imports(setup_cfg: configparser.ConfigParser) -> None:
    texts = [setup_cfg['options']['install_requires'], *dict(setup_cfg['options.extras_require']).values()]
    declared = {canonicalize_name(name) for text in texts for name in _requirements(text)}
    # One distribution of each host package is declared; mmcv is installed separately.
    known = {'mmcv', 'tensorflow', *compat.HOST_DISTRIBUTIONS, 'remax_mm'}
    missing = {}
    for path in [
            path for name in ('remax_mm', 'tools', 'demo') for path in (REPOSITORY / name).rglob('*.py')
    ]:
        for module in _imported_packages(path) - known - set(sys.stdlib_module_names):
            if canonicalize_name(DISTRIBUTIONS.get(module, module)) not in declared:
                missing[module] = path.name
    assert not missing


def _imported_packages(path: Path) -> set:
    found = set()
    for node in ast.walk(ast.parse(path.read_text(encoding='utf-8'))):
        if isinstance(node, ast.Import):
            found.update(alias.name.split('.')[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and not node.level and node.module:
            found.add(node.module.split('.')[0])
    return found


# ---- metafiles

SOURCES = dict(
    paper='arXiv 2306.17319, Table', deeplab2='google-research/deeplab2', release='bytedance/kmax-deeplab')


def _models() -> list:
    files = yaml.safe_load((REPOSITORY / 'model-index.yml').read_text())['Import']
    return [model for file in files for model in yaml.safe_load((REPOSITORY / file).read_text())['Models']]


def test_metafiles__every_model_once() -> None:
    models = _models()
    names = [model['Name'] for model in models]
    assert len(set(names)) == len(names)
    assert set(names) == {
        name
        for name, path in PATHS.items() if path.parent.name not in ('mini', 'own_data')
    }
    for model in models:
        assert REPOSITORY / model['Config'] == PATHS[model['Name']]
    aliases = [model['Alias'] for model in models if 'Alias' in model]
    assert len(set(aliases)) == len(aliases) and not set(aliases) & set(names)


def test_metafiles__numbers_of_the_recipe_cards_with_their_source() -> None:
    for model in _models():
        card = PATHS[model['Name']].read_text().split('"""')[1]
        expected = re.search(r'Expected:  PQ ([\d.]+)(?:, mIoU ([\d.]+))? \((the paper|deeplab2|the release)',
                             card)
        found = {
            key: value
            for result in model.get('Results', [])
            for key, value in result['Metrics'].items()
        }
        if expected is None:
            assert not found, model['Name']
            continue
        quality, miou, source = expected.groups()
        source = source.split()[-1]
        numbers = {f'PQ ({source})': float(quality)}
        if miou is not None:
            numbers[f'mIoU ({source})'] = float(miou)
        assert found == numbers, model['Name']
        assert SOURCES[source] in model['Metadata']['Source of Results']


def test_metafiles__are_read_by_mmengine() -> None:
    with DefaultScope.overwrite_default_scope('mmdet'):
        assert BaseInferencer.list_models('remax_mm', r'remax-t_.*') == ['remax-t_mnv3-s_8xb8-150k_coco-641']
        config = Config.fromfile(get_config('remax_mm::remax/remax-t_mnv3-s_8xb8-150k_coco-641.py').filename)
    assert config.model.type == 'MaskTransformer'


def test_base__configs_of_the_package_by_name(tmp_path: Path) -> None:
    path = tmp_path / 'own.py'
    path.write_text("_base_ = 'remax_mm::mini/remax_mnv3-s_1xb8-1k_mini-129.py'\n"
                    'model = dict(test_cfg=dict(instance_on=True))\n')
    config = Config.fromfile(path)
    # The modules are registered in mmdet's scope.
    assert config.model.test_cfg.instance_on and config.model._scope_ == 'mmdet'
    assert DATASETS.get(config.train_dataloader.dataset.type) is not None


# ---- wheel and source distribution


@pytest.fixture(scope='module')
def built(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Folder with a source distribution, and a wheel that was built from it."""
    pytest.importorskip('build')
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=REPOSITORY, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip('not a git checkout')
    # Built from a copy, because setuptools writes files next to the sources.
    source, out = tmp_path_factory.mktemp('source'), tmp_path_factory.mktemp('built')
    for name in filter(None, tracked.stdout.split('\0')):
        copy = source / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        shutil.copy2(REPOSITORY / name, copy, follow_symlinks=False)
    # With the installed setuptools, so that nothing is downloaded.
    command = [sys.executable, '-m', 'build', '--no-isolation', '--outdir', str(out), str(source)]
    done = subprocess.run(command, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return out


@pytest.mark.slow
def test_sdist__contains_what_a_checkout_has(built: Path) -> None:
    archive, = built.glob('remax_mm-*.tar.gz')
    with tarfile.open(archive) as tar:
        assert not [member.name for member in tar.getmembers() if member.issym() or member.islnk()]
        shipped = {name.split('/', 1)[1] for name in tar.getnames() if '/' in name}
    tracked = subprocess.run(['git', 'ls-files'], cwd=REPOSITORY, capture_output=True,
                             text=True).stdout.split()
    links = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / 'remax_mm' / '.mim').iterdir()}
    left_out = {name for name in tracked if name not in shipped | links and not name.startswith('.')}
    assert not left_out


@pytest.mark.slow
def test_wheel__contains_package_configs_and_tools(built: Path) -> None:
    wheel, = built.glob('remax_mm-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
        text = archive.read(next(name for name in shipped if name.endswith('/METADATA'))).decode()
    sources = {str(path.relative_to(REPOSITORY)) for path in (REPOSITORY / 'remax_mm').rglob('*.py')}
    extra = {
        f'remax_mm/.mim/{path.relative_to(REPOSITORY)}'
        for folder in ('configs', 'tools')
        for path in (REPOSITORY / folder).rglob('*') if path.suffix in ('.py', '.yml', '.md', '.sh')
    }
    expected = {*sources, *extra, 'remax_mm/py.typed', 'remax_mm/.mim/model-index.yml'}
    assert not expected - shipped
    assert {name.split('/')[0]
            for name in shipped - expected} == {f'remax_mm-{remax_mm.__version__}.dist-info'}
    assert f'Version: {remax_mm.__version__}' in text and 'Provides-Extra: onedl' in text
    assert 'Project-URL: Paper of ReMaX, https://arxiv.org/abs/2306.17319' in text
    assert 'Requires-Dist: opencv-python' in text


INSTALLED = """
import sys
import remax_mm
from mmengine.config import Config
from mmengine.hub import get_config
assert remax_mm.__file__.startswith(sys.prefix), remax_mm.__file__
config = get_config('remax_mm::remax/remax-t_mnv3-s_8xb8-150k_coco-641.py')
assert config.filename.startswith(sys.prefix) and config.model.type == 'MaskTransformer'
for name in ('own.py', 'new_style.py'):
    assert Config.fromfile(name).model.test_cfg.instance_on
"""


@pytest.fixture(scope='module')
def installed(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Python of an environment with the wheel, in which the packages of this environment are visible."""
    folder = tmp_path_factory.mktemp('environment')
    subprocess.run([sys.executable, '-m', 'venv', '--without-pip', str(folder)], check=True)
    site = Path(sysconfig.get_path('purelib', vars=dict(base=str(folder))))
    (site / 'host.pth').write_text('\n'.join(path for path in sys.path if path.endswith('-packages')))
    wheel, = built.glob('*.whl')
    with zipfile.ZipFile(wheel) as archive:
        archive.extractall(site)
    return folder / 'bin' / 'python'


def _run(python: Path, folder: Path, *arguments: str) -> str:
    environment = {name: value for name, value in os.environ.items() if name != 'PYTHONPATH'}
    done = subprocess.run([str(python), *arguments],
                          cwd=folder,
                          env=environment,
                          capture_output=True,
                          text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    return done.stdout


@pytest.mark.slow
def test_installed_wheel__configs_and_tools_by_name(installed: Path, tmp_path: Path) -> None:
    (tmp_path / 'own.py').write_text("_base_ = 'remax_mm::remax/remax-t_mnv3-s_8xb8-150k_coco-641.py'\n"
                                     'model = dict(test_cfg=dict(instance_on=True))\n')
    (tmp_path / 'new_style.py').write_text(
        'from mmengine.config import read_base\n\n'
        'with read_base():\n    from remax_mm.configs.remax_mnv3_s_1xb8_1k_mini_129 import *\n\n'
        'model.update(test_cfg=dict(instance_on=True))\n')
    _run(installed, tmp_path, '-c', INSTALLED)
    assert 'remax_mm/train.py' in _run(installed, tmp_path, '-m', 'remax_mm.tool').split()
    printed = _run(installed, tmp_path, '-m', 'remax_mm.tool', 'mmdet/misc/print_config.py', 'own.py')
    assert "type='MaskTransformer'" in printed and 'instance_on=True' in printed
    assert '--tta' in _run(installed, tmp_path, '-m', 'remax_mm.tool', 'remax_mm/test.py', '--help')


@pytest.mark.slow
def test_installed_wheel__mim_search(installed: Path, tmp_path: Path) -> None:
    if importlib.util.find_spec('mim') is None:
        pytest.skip('openmim is not installed')
    code = 'from mim import get_model_info; print(get_model_info("remax_mm").to_csv())'
    table = _run(installed, tmp_path, '-c', code)
    row = next(line for line in table.splitlines() if line.startswith('remax-t_mnv3-s_8xb8-150k_coco-641'))
    assert '40.4' in row and 'tables 1 and 12' in row.lower()
