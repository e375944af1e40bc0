"""Actions after the first import of a module."""
import sys
from importlib import import_module
from pathlib import Path
from types import ModuleType
from typing import Iterator, List

import pytest

from remax_mm.import_hooks import after_import


@pytest.fixture
def name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[str]:
    """Name of a module of a package that nobody has imported."""
    package = tmp_path / 'hooked_package'
    package.mkdir()
    (package / '__init__.py').touch()
    (package / 'part.py').write_text('value = 1\n')
    monkeypatch.syspath_prepend(str(tmp_path))
    yield 'hooked_package.part'
    for module in ('hooked_package', 'hooked_package.part'):
        sys.modules.pop(module, None)


def test_after_import__waits_for_the_code_of_the_module(name: str) -> None:
    seen: List[int] = []
    after_import(name, lambda module: seen.append(module.value))
    assert name not in sys.modules and not seen

    assert import_module(name).value == 1 and seen == [1]


def test_after_import__of_an_imported_module_is_now() -> None:
    seen: List[ModuleType] = []
    after_import('json', seen.append)
    assert seen == [sys.modules['json']]


def test_after_import__waits_for_an_import_that_succeeds(name: str, tmp_path: Path) -> None:
    seen: List[int] = []
    after_import(name, lambda module: seen.append(module.value))
    file = tmp_path / 'hooked_package' / 'part.py'
    file.write_text('raise ImportError\n')
    with pytest.raises(ImportError):
        import_module(name)
    assert not seen

    file.write_text('value = 23\n')
    assert import_module(name).value == 23 and seen == [23]


def test_after_import__a_missing_module_stays_missing() -> None:
    after_import('no_such_module_anywhere', pytest.fail)
    with pytest.raises(ModuleNotFoundError):
        import_module('no_such_module_anywhere')
