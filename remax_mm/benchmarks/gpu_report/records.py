"""The results of a report: one JSON file per case."""
import json
import os
import re
from pathlib import Path
from typing import Any, Dict, Iterator, List, NamedTuple, Sequence

WAITING, RUNNING, DONE = 'waiting', 'running', 'done'
STOPPED, SKIPPED, FAILED = 'stopped', 'skipped', 'failed'
STATUSES = (WAITING, RUNNING, DONE, STOPPED, SKIPPED, FAILED)
SETTINGS_FILE = 'settings.json'


class Case(NamedTuple):
    """One measurement.

    Attributes:
        name: in tables.
        options: what is measured.
        weight: share of the time of its part, relative to the other cases.
    """
    name: str
    options: Dict[str, Any] = {}
    weight: float = 1.


class Record(NamedTuple):
    """What is known of a case.

    Attributes:
        name, options: of the case.
        status: one of ``STATUSES``: stopped at the limit of time, skipped because it cannot run here.
        reason: why it is not done.
        result: numbers; also of a case that was stopped.
        started: when its last run began, by ``time.time``.
        seconds: that its last run took.
    """
    name: str
    options: Dict[str, Any]
    status: str = WAITING
    reason: str = ''
    result: Dict[str, Any] = {}
    started: float = 0.
    seconds: float = 0.


class Records:
    """The records of a part, in the files ``<folder>/results/<part>/<case>.json``.

    Args:
        folder: of the report.
        part: name of the part.
    """

    def __init__(self, folder: Path, part: str) -> None:
        self.folder = folder / 'results' / part

    def read(self, case: Case) -> Record:
        """The record of a case, also of one that never ran.

        Raises:
            ValueError: the file is not a record.
        """
        path = self._path(case)
        if not path.is_file():
            return Record(case.name, case.options)
        content = read_object(path)
        try:
            record = Record(**content)
        except TypeError as error:
            raise ValueError(f'Expected the record of a case in {path}, but {error}') from error
        if record.status not in STATUSES:
            raise ValueError(f'Expected a status among {STATUSES} in {path}, but got {record.status!r}')
        return record

    def read_all(self, cases: Sequence[Case]) -> List[Record]:
        """The records of some cases."""
        return [self.read(case) for case in cases]

    def write(self, case: Case, **changes: Any) -> Record:
        """Change the record of a case. A process that ends meanwhile leaves the old file or the new one."""
        record = self.read(case)._replace(options=case.options, **changes)
        write_json(self._path(case), record._asdict())
        return record

    def _path(self, case: Case) -> Path:
        return self.folder / f'{file_name(case.name)}.json'


def file_name(name: str) -> str:
    """Letters, digits and dashes of the name of a case."""
    return re.sub('[^a-z0-9]+', '-', name.lower()).strip('-')


def write_json(path: Path, content: Any) -> None:
    """Write a file at once: a reader never sees a part of it."""
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = path.with_suffix('.unfinished')
    unfinished.write_text(json.dumps(content, indent=2), encoding='utf-8')
    os.replace(unfinished, path)


def read_object(path: Path) -> Dict[str, Any]:
    """Read a JSON object.

    Raises:
        ValueError: the file has none.
    """
    try:
        content = json.loads(path.read_text(encoding='utf-8'))
    except ValueError as error:
        raise ValueError(f'Expected a JSON object in {path}, but {error}') from error
    if not isinstance(content, dict):
        raise ValueError(f'Expected a JSON object in {path}, but got {content!r:.80}')
    return content


def check_settings(folder: Path, settings: Dict[str, Any]) -> None:
    """Store what all results of a report have in common, or compare it with what is stored.

    Raises:
        ValueError: the folder has results of other settings, such as another GPU or commit.
    """
    path = folder / SETTINGS_FILE
    if not path.is_file():
        write_json(path, settings)
        return
    different = list(_differences(read_object(path), settings))
    if different:
        raise ValueError(f'Expected results with the settings of this run in {folder}, but got those of '
                         f'{", ".join(different)}; choose another --out')


def _differences(stored: Dict[str, Any], settings: Dict[str, Any]) -> Iterator[str]:
    for name in {**settings, **stored}:
        if stored.get(name) != settings.get(name):
            yield f'{name} {stored.get(name)} instead of {settings.get(name)}'
