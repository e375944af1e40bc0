"""Reading of the metrics that mmengine logs: losses by iteration, and the results of evaluations."""
import json
from pathlib import Path
from typing import Any, Dict, List, NamedTuple, Optional, Sequence, Tuple

from remax_mm.panoptic_format import check_unique, list_some

LOG_PATTERN = '*/vis_data/scalars.json'


class MetricLog(NamedTuple):
    """Metrics of a run.

    Attributes:
        name: Name of the run.
        curves: Iterations and values of each metric, in the order of the iterations.
        results: The last evaluation: values of all of its metrics.
    """
    name: str
    curves: Dict[str, List[Tuple[int, float]]]
    results: Dict[str, float]

    def class_values(self, metric: str) -> Dict[str, float]:
        """Values of a metric by class, such as ``PQ`` of ``coco_panoptic/PQ/<class>``."""
        found = {}
        for key, value in self.results.items():
            prefix, _, name = key.partition(f'/{metric}/')
            if name and '/' not in prefix:
                found[name] = value
        return found


def read_runs(paths: Sequence[Path], names: Optional[Sequence[str]] = None) -> List[MetricLog]:
    """Read the logs of several runs.

    Args:
        paths: Work dirs or files, see :func:`read_log`.
        names: Names of the runs, those of the work dirs or files if None.

    Raises:
        ValueError: there is another number of names than of runs, or a name occurs twice.
    """
    if names is not None and len(names) != len(paths):
        raise ValueError(f'Expected a name for each of the {len(paths)} runs, but got {len(names)}')
    names = names or [path.resolve().name if path.is_dir() else path.stem for path in paths]
    check_unique('name', 'runs', names, 'the command line; --names sets other names')
    return [read_log(path, name) for path, name in zip(paths, names)]


def read_log(path: Path, name: str) -> MetricLog:
    """Read the log of a run.

    Args:
        path: A work dir, whose ``<time>/vis_data/scalars.json`` are read in the order of time; one such file;
            or the JSON of a test, which has results without curves. Where a resumed training repeats
            iterations, the later file counts.
        name: Name of the run.

    Raises:
        FileNotFoundError: there is no such file, or no log in the work dir.
        ValueError: a line is not a JSON object; the last line of a file may be incomplete, because the
            training may still run.
    """
    files = sorted(path.glob(LOG_PATTERN)) if path.is_dir() else [path]
    if not files or not files[0].is_file():
        raise FileNotFoundError(
            f'Expected a file of metrics, or a work dir with {LOG_PATTERN}, at {path}, but there is none')
    curves: Dict[str, List[Tuple[int, float]]] = {}
    results: Dict[str, float] = {}
    for file in files:
        records = _read_records(file)
        start = min((record['step'] for record in records if 'step' in record), default=None)
        if start is not None:
            curves = {key: [point for point in curve if point[0] < start] for key, curve in curves.items()}
        for record in records:
            values = {key: float(value) for key, value in record.items() if _is_number(key, value)}
            if 'loss' not in record:
                results = values
            if 'step' in record:
                for key, value in values.items():
                    curves.setdefault(key, []).append((int(record['step']), value))
    return MetricLog(name, {key: curve for key, curve in curves.items() if curve}, results)


def _read_records(path: Path) -> List[Dict[str, Any]]:
    """The objects of a file: one, or one per line."""
    text = path.read_text(encoding='utf-8')
    try:
        whole = json.loads(text)
        return [_check_record(whole, path, 1)]
    except json.JSONDecodeError:
        pass
    lines = text.splitlines()
    records = []
    for number, line in enumerate(lines, start=1):
        try:
            records.append(_check_record(json.loads(line), path, number))
        except json.JSONDecodeError as error:
            if number == len(lines) and not text.endswith('\n'):
                break
            raise ValueError(f'Expected a JSON object in line {number} of {path}, but {error}') from error
    return records


def _check_record(record: Any, path: Path, number: int) -> Dict[str, Any]:
    if not isinstance(record, dict):
        raise ValueError(f'Expected a JSON object in line {number} of {path}, but got {record!r:.80}')
    return record


def _is_number(key: str, value: Any) -> bool:
    is_number = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_number and key not in ('step', 'iter', 'epoch')


def find_metric(runs: Sequence[MetricLog], key: str) -> str:
    """The full name of a metric: ``loss`` is itself, and ``PQ`` stands for ``coco_panoptic/PQ``.

    Raises:
        ValueError: no run has it.
    """
    known = {known for run in runs for known in run.curves}
    matches = sorted(name for name in known if name == key or name.split('/', 1)[-1] == key)
    if not matches:
        raise ValueError(
            f'Expected a metric of {list_some(run.name for run in runs)}, but got {key!r}; there '
            f'are {", ".join(sorted(name for name in known if name.count("/") < 2)) or "none"}')
    return key if key in matches else matches[0]
