"""Metadata of the package, its extras, and the content of the wheel."""
import configparser
import subprocess
import sys
import zipfile
from pathlib import Path

import pytest
from packaging.requirements import Requirement

import remax_mm
from remax_mm import compat

REPOSITORY = Path(__file__).resolve().parents[1]


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
    assert {'openmmlab', 'onedl', 'tools', 'docs', 'onnx', 'dev'} == set(extras)
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


@pytest.mark.slow
def test_wheel__contains_the_whole_package(tmp_path: Path) -> None:
    # Built with the installed setuptools, so that nothing is downloaded.
    pytest.importorskip('wheel')
    # Built from a copy, because setuptools writes files next to the sources.
    tracked = subprocess.run(['git', 'ls-files', '-z'], cwd=REPOSITORY, capture_output=True, text=True)
    if tracked.returncode != 0:
        pytest.skip('not a git checkout')
    for name in filter(None, tracked.stdout.split('\0')):
        if not name.startswith(('remax_mm/', 'setup.cfg', 'pyproject.toml', 'README.md', 'LICENSE')):
            continue
        copy = tmp_path / 'source' / name
        copy.parent.mkdir(parents=True, exist_ok=True)
        copy.write_bytes((REPOSITORY / name).read_bytes())
    options = ['--no-build-isolation', '--no-deps', '--no-index', '--wheel-dir', str(tmp_path)]
    command = [sys.executable, '-m', 'pip', 'wheel', *options, str(tmp_path / 'source')]
    build = subprocess.run(command, capture_output=True, text=True)
    assert build.returncode == 0, build.stdout + build.stderr

    wheel, = tmp_path.glob('remax_mm-*.whl')
    with zipfile.ZipFile(wheel) as archive:
        shipped = set(archive.namelist())
        metadata = archive.read(next(name for name in shipped if name.endswith('/METADATA'))).decode()
    source = tmp_path / 'source'
    sources = {str(path.relative_to(source)) for path in source.glob('remax_mm/**/*.py')}
    assert sources <= shipped
    assert 'remax_mm/py.typed' in shipped
    assert not any(name.startswith(('tests/', 'tools/', 'configs/')) for name in shipped)
    assert 'Name: remax_mm' in metadata or 'Name: remax-mm' in metadata
    assert f'Version: {remax_mm.__version__}' in metadata
    assert 'Provides-Extra: onedl' in metadata
