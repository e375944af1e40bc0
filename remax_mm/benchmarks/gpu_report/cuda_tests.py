"""Part of the report that runs ``tests/cuda``."""
from collections import Counter
from importlib.util import find_spec
from typing import Any, Dict, Iterator, List

from remax_mm.analysis.version_comparison import REPOSITORY
from .part import CannotRun, Context
from .records import Case
from .scale import Scale

FOLDER = REPOSITORY / 'tests' / 'cuda'
PASSED, FAILED, SKIPPED = 'passed', 'failed', 'skipped'


def list_test_cases(scale: Scale) -> List[Case]:
    """The test files."""
    names = sorted(path.name for path in FOLDER.glob('test_*.py')) or ['no tests']
    return [Case(name, dict(file=name)) for name in names]


class Outcomes:
    """Plugin of pytest that keeps what becomes of the tests."""

    def __init__(self) -> None:
        self.counts: Dict[str, int] = Counter()
        self.failures: List[str] = []
        self.reasons: List[str] = []

    def pytest_collectreport(self, report: Any) -> None:
        """A file that cannot be imported is a failure."""
        if report.failed:
            self._fail(report)

    def pytest_runtest_logreport(self, report: Any) -> None:
        """Setup, call and teardown of each test come one by one."""
        if report.failed:
            self._fail(report)
        elif report.skipped:
            self.counts[SKIPPED] += 1
            reason = report.longrepr[-1] if isinstance(report.longrepr, tuple) else str(report.longrepr)
            reason = reason.removeprefix('Skipped: ')
            if reason not in self.reasons:
                self.reasons.append(reason)
        elif report.when == 'call':
            self.counts[PASSED] += 1

    def _fail(self, report: Any) -> None:
        self.counts[FAILED] += 1
        message = report.longreprtext.strip().splitlines()[-1:]
        self.failures.append(': '.join([report.nodeid, *message]))


def run_tests(context: Context) -> Iterator[Dict[str, Any]]:
    """Run a test file.

    Yields:
        Numbers of tests that ``passed``, ``failed`` and were ``skipped``; ``failures``, their names and
        messages; ``reasons`` of skipped tests.

    Raises:
        CannotRun: pytest or the tests are not installed, or all tests are skipped.
        RuntimeError: pytest did not run the file.
    """
    if find_spec('pytest') is None:
        raise CannotRun("pytest is not installed: pip install 'remax_mm[dev]'")
    if not FOLDER.is_dir():
        raise CannotRun(f'there are no tests in {FOLDER}; they are in a checkout of the repository')
    import pytest

    outcomes, path = Outcomes(), FOLDER / context.case.options['file']
    code = pytest.main(['-c', str(REPOSITORY / 'setup.cfg'), '-p', 'no:cacheprovider', str(path)], [outcomes])
    if code not in (pytest.ExitCode.OK, pytest.ExitCode.TESTS_FAILED, pytest.ExitCode.INTERRUPTED):
        raise RuntimeError(f'Expected pytest to run {path.name}, but its exit code is {int(code)}')
    counts = {name: outcomes.counts[name] for name in (PASSED, FAILED, SKIPPED)}
    if counts[SKIPPED] and not counts[PASSED] + counts[FAILED]:
        raise CannotRun('; '.join(outcomes.reasons))
    yield dict(counts, failures=outcomes.failures, reasons=outcomes.reasons)
