"""Wrong and unusual variants of a small panoptic dataset, given to checker, training and evaluation.

A variant is one change of one file of a correct dataset. It states which of the three steps read the changed
part and must refuse it; the other steps must accept it. The variants are always the same.
"""
import contextlib
import importlib.util
import io
import json
import resource
import shutil
import signal
import tempfile
from collections import Counter
from functools import lru_cache
from pathlib import Path
from typing import Any, Callable, Collection, Dict, Iterator, List, NamedTuple, Sequence

from mmengine.registry import DefaultScope

import remax_mm  # noqa: F401  (registers the datasets)
from remax_mm.datasets import LoadImageStrict, LoadPanopticMap, PanopticMapDataset
from tests.reliability.fuzz_dataset import CHECKER, EVALUATION, STEPS, TRAINING, Variant, original_folder
from tests.reliability.fuzz_files import photo_variants, png_variants, special_file_variants
from tests.reliability.fuzz_json import entry_variants, missing_key_variants, text_variants, value_variants

TOOLS = Path(remax_mm.__file__).resolve().parents[1] / 'tools' / 'analysis_tools'
OUTCOMES = ('refused clearly', 'refused unclearly', 'silently accepted', 'over time', 'accepted',
            'false alarm')
"""The last two are of correct variants."""

TIME_LIMIT = 25  # seconds for each step
MEMORY_LIMIT = 8 * 2**30  # bytes more than before


class Result(NamedTuple):
    """Outcome of one step for one variant, and what the step says."""
    variant: str
    step: str
    outcome: str
    message: str


def all_variants() -> List[Variant]:
    """All variants, in a fixed order; the first is the correct dataset."""
    return [
        Variant('correct', lambda folder: None, ()), *value_variants(), *missing_key_variants(),
        *entry_variants(), *text_variants(), *special_file_variants(), *photo_variants(), *png_variants()
    ]


@lru_cache(maxsize=None)
def _load_tool(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, TOOLS / f'{name}.py')
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


def run_checker(folder: Path) -> str:
    """Errors that the checker reports; empty for a correct dataset."""
    report = folder / 'report.json'
    code = _load_tool('check_panoptic_dataset').main([
        '--json', f'{folder}/gt.json', '--pngs', f'{folder}/gt', '--images', f'{folder}/images', '--out',
        str(report)
    ])
    findings = json.loads(report.read_text())['findings']
    errors = [f'{found["file"]}: {found["message"]}' for found in findings if found['is_error']]
    if (code != 0) != bool(errors):
        raise RuntimeError(f'exit code {code} with {len(errors)} errors')
    return '; '.join(errors)


def run_training(folder: Path) -> None:
    """Load all images as training does."""
    with DefaultScope.overwrite_default_scope('mmdet'):
        dataset = PanopticMapDataset(
            data_root=str(folder),
            ann_file='gt.json',
            data_prefix=dict(img='images', seg='gt'),
            pipeline=[LoadImageStrict(), LoadPanopticMap()])
        for index in range(len(dataset)):
            dataset[index]


def run_evaluation(folder: Path) -> None:
    """Compute the panoptic quality of the predictions."""
    _load_tool('eval_panoptic').main(['--gt-json', f'{folder}/gt.json', '--pred-json', f'{folder}/pred.json'])


RUN_STEP: Dict[str, Callable[[Path], Any]] = {
    CHECKER: run_checker,
    TRAINING: run_training,
    EVALUATION: run_evaluation
}


class OverTimeError(BaseException):
    """A step took longer than the limit; no step catches it."""


@contextlib.contextmanager
def _limits(seconds: int, memory: int) -> Iterator[None]:
    """Limit the time and the additional address space of a block; its output is not shown."""

    def stop(*_: Any) -> None:
        raise OverTimeError

    pages = int(Path('/proc/self/statm').read_text().split()[0])
    soft, hard = resource.getrlimit(resource.RLIMIT_AS)
    handler = signal.signal(signal.SIGALRM, stop)
    resource.setrlimit(resource.RLIMIT_AS, (pages * resource.getpagesize() + memory, hard))
    signal.alarm(seconds)
    try:
        with contextlib.redirect_stdout(io.StringIO()), contextlib.redirect_stderr(io.StringIO()):
            yield
    finally:
        signal.alarm(0)
        resource.setrlimit(resource.RLIMIT_AS, (soft, hard))
        signal.signal(signal.SIGALRM, handler)


def run_variant(variant: Variant, steps: Sequence[str] = STEPS, seconds: int = TIME_LIMIT) -> List[Result]:
    """Run the steps on a variant of the dataset, each with a time limit."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name, 'data')
        shutil.copytree(original_folder(), folder)
        names = {path.name for path in folder.rglob('*.*')} | {str(folder)}
        variant.apply(folder)
        return [_run_step(variant, step, folder, names, seconds) for step in steps]


def _run_step(variant: Variant, step: str, folder: Path, names: Collection[str], seconds: int) -> Result:
    is_wrong = step in variant.refused_by
    try:
        with _limits(seconds, MEMORY_LIMIT):
            message = RUN_STEP[step](folder) or ''
        outcome = 'refused clearly' if message else 'silently accepted'
    except OverTimeError:
        return Result(variant.name, step, 'over time', f'more than {seconds} s')
    except (Exception, SystemExit) as error:
        message = f'{type(error).__name__}: {error}'
        is_clear = isinstance(error, (ValueError, OSError)) and any(name in str(error) for name in names)
        outcome = 'refused clearly' if is_clear else 'refused unclearly'
    if not is_wrong:
        outcome = 'accepted' if outcome == 'silently accepted' else 'false alarm'
    return Result(variant.name, step, outcome, message[:500])


def format_counts(results: Sequence[Result]) -> str:
    """A table: the number of outcomes of each step, and the percentages among the wrong variants."""
    lines = ['| step | wrong | ' + ' | '.join(OUTCOMES) + ' |', '|---' * (2 + len(OUTCOMES)) + '|']
    for step in [*STEPS, 'all']:
        counts = Counter(result.outcome for result in results if step in ('all', result.step))
        wrong = sum(counts[outcome] for outcome in OUTCOMES[:4])
        cells = [f'{counts[outcome]} ({counts[outcome] / max(wrong, 1):.1%})' for outcome in OUTCOMES[:4]]
        cells += [str(counts[outcome]) for outcome in OUTCOMES[4:]]
        lines.append(f'| {step} | {wrong} | ' + ' | '.join(cells) + ' |')
    return '\n'.join(lines)
