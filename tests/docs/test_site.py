"""The pages are in the site, their links lead somewhere, and the reference has all packages."""
import ast
import re
import subprocess
import sys
import unicodedata
from importlib.util import find_spec
from pathlib import Path
from typing import Any, Iterator, List, Set

import pytest
import yaml

from tests.conftest import REPOSITORY
from tests.docs.code_blocks import PAGES

DOCS = REPOSITORY / 'docs'
LINK = re.compile(r'\]\((?![a-z]+:)(?P<target>[^)\s#]*)(?:#(?P<anchor>[^)\s]*))?\)')
DEFINED = re.compile(r'^(?:class|def) (\w+)', re.MULTILINE)
PACKAGES = sorted(
    path.parent for path in (REPOSITORY / 'remax_mm').rglob('__init__.py')
    if '__all__' in path.read_text() and path.parent.name != 'remax_mm')


def _nav_pages(entry: Any) -> Iterator[str]:
    if isinstance(entry, str):
        yield entry
    else:
        for child in entry.values() if isinstance(entry, dict) else entry:
            yield from _nav_pages(child)


def test_site__every_page_is_in_the_navigation():
    config = yaml.safe_load((REPOSITORY / 'mkdocs.yml').read_text())
    pages = [str(path.relative_to(DOCS)) for path in DOCS.rglob('*.md')]
    assert sorted(_nav_pages(config['nav'])) == sorted(pages)


def test_site__reference_has_every_package():
    directives = {
        name
        for page in (DOCS / 'api').glob('*.md')
        for name in re.findall(r'^::: (\S+)$', page.read_text(), re.MULTILINE)
    }
    names = ['.'.join(path.relative_to(REPOSITORY).parts) for path in PACKAGES]
    # The reference shows a package itself, its parent, or its parts.
    missing = [
        name for name in names
        if not any(f'{name}.'.startswith(f'{entry}.') or f'{entry}.'.startswith(f'{name}.')
                   for entry in directives)
    ]
    assert not missing


@pytest.mark.parametrize('page', PAGES, ids=lambda page: str(page.relative_to(REPOSITORY)))
def test_pages__links_lead_somewhere(page):
    for link in LINK.finditer(re.sub(r'```.*?```', '', page.read_text(encoding='utf-8'), flags=re.DOTALL)):
        target = page.parent / link['target'] if link['target'] else page
        assert target.exists(), f'{page.name}: {link["target"]}'
        if link['anchor']:
            assert link['anchor'] in _anchors(target), f'{page.name}: {link[0]}'


def _anchors(page: Path) -> Set[str]:
    """Anchors of the headings of a page, as a code host and the site make them."""
    headings = re.findall(r'^#+ (.+)$', page.read_text(encoding='utf-8'), re.MULTILINE)
    plain = (
        unicodedata.normalize('NFKD', heading).encode('ascii', 'ignore').decode() for heading in headings)
    return {re.sub(r'[-\s]+', '-', re.sub(r'[^\w\s-]', '', text).strip().lower()) for text in plain}


def _exported(file: Path) -> List[str]:
    """``__all__`` of a module."""
    for node in ast.parse(file.read_text()).body:
        if isinstance(node, ast.Assign) and ast.unparse(node.targets[0]) == '__all__':
            return ast.literal_eval(node.value)
    return []


@pytest.mark.slow
def test_site__builds_without_warnings(tmp_path):
    if find_spec('material') is None or find_spec('mkdocstrings') is None:
        pytest.skip('needs the extra `docs`')
    command = [sys.executable, '-m', 'mkdocs', 'build', '--strict', '--site-dir', str(tmp_path)]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr[-3000:]

    # A class of the reference, with its arguments
    relaxations = (tmp_path / 'api/relaxations/index.html').read_text()
    assert 'id="remax_mm.models.relaxations.ReClass"' in relaxations and 'smoothing outside' in relaxations
    without_code = re.sub(r'<details.*?</details>', '', relaxations, flags=re.DOTALL)
    assert ':class:' not in without_code and ':func:' not in without_code
    # Every class and function that a package exports
    reference = ''.join(page.read_text() for page in (tmp_path / 'api').rglob('index.html'))
    shown = {name.split('.')[-1] for name in re.findall(r'id="(remax_mm[\w.]*)"', reference)}
    for package in PACKAGES:
        code = ''.join(path.read_text() for path in package.glob('*.py'))
        missing = set(_exported(package / '__init__.py')) & set(DEFINED.findall(code)) - shown
        assert not missing, f'{package.name}: {missing}'
    # A file outside of docs that a page links to
    zoo = (tmp_path / 'model_zoo/index.html').read_text()
    source = 'source/configs/remax/remax-t_mnv3-s_8xb8-150k_coco-641.py/'
    assert f'href="../{source}"' in zoo and (tmp_path / source / 'index.html').is_file()
    # Nothing is loaded from other servers
    assert not re.search(r'(src|href)="https?://[^"]*\.(js|css|woff2?)"',
                         (tmp_path / 'index.html').read_text())
