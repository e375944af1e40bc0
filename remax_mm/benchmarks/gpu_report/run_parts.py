"""Run the parts of a report within a limit of time, each in processes of its own."""
import json
import os
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path
from typing import Callable, List, NamedTuple, Optional, Sequence

from remax_mm.analysis.version_comparison import REPOSITORY
from .part import Part, share_time
from .records import FAILED, RUNNING, SKIPPED, STOPPED, WAITING, Case, Records
from .scale import SCALES
from .worker import Request

WORKER = 'remax_mm.benchmarks.gpu_report.worker'
GRACE = 10.
"""Seconds that a process has to end, such as a training that writes a checkpoint."""


class Plan(NamedTuple):
    """What a report is made of.

    Attributes:
        parts: to run, the most informative ones first.
        scale: key of ``SCALES``.
        device: ``'cuda'`` or ``'cpu'``.
        folder: of the report, absolute.
        no_device: why nothing can be measured on the device, '' if it can.
    """
    parts: Sequence[Part]
    scale: str
    device: str
    folder: Path
    no_device: str = ''

    def cases(self, part: Part) -> List[Case]:
        """The cases of a part."""
        return part.list_cases(SCALES[self.scale])


RunWorker = Callable[[Request, Path], Optional[int]]


def run_parts(plan: Plan, end: float) -> None:
    """Run everything that is not done, until the time is over.

    Results of earlier runs are kept. What was stopped, skipped or failed earlier is tried again. What parts
    do not use of their time is shared by the parts after them, and at the end by those that were stopped.

    Args:
        plan: parts and settings.
        end: of the time, by ``time.monotonic``.
    """
    for statuses in ({WAITING, RUNNING, STOPPED, SKIPPED, FAILED}, {WAITING, STOPPED}):
        waiting = [(part, _with_status(plan, part, statuses)) for part in plan.parts]
        waiting = [(part, cases) for part, cases in waiting if cases]
        for number, (part, cases) in enumerate(waiting):
            left = end - time.monotonic()
            if left <= 0:
                return
            seconds = share_time(left, [part.share for part, _ in waiting[number:]])
            print(f'{part.title}: {len(cases)} measurements in up to {seconds:.0f} s', flush=True)
            run_part(plan, part, cases, seconds)


def _with_status(plan: Plan, part: Part, statuses: set) -> List[Case]:
    """Cases with one of the statuses; those that were stopped come last."""
    records = Records(plan.folder, part.name)
    found = [(case, records.read(case).status) for case in plan.cases(part)]
    found.sort(key=lambda pair: pair[1] == STOPPED)
    return [case for case, status in found if status in statuses]


def run_part(plan: Plan,
             part: Part,
             cases: Sequence[Case],
             seconds: float,
             run: Optional[RunWorker] = None) -> None:
    """Run cases of a part. A case that ends its process does not hinder the others.

    Args:
        plan: settings.
        part: the part.
        cases: of the part, in the order in which they run.
        seconds: that they may take together.
        run: see :func:`run_worker`, which is the default.
    """
    run, records, end = run or run_worker, Records(plan.folder, part.name), time.monotonic() + seconds
    if plan.no_device and part.needs_device:
        for case in cases:
            records.write(case, status=SKIPPED, reason=plan.no_device)
        return

    for case in cases:
        if records.read(case).status == RUNNING:  # an earlier run of this tool was killed
            records.write(case, status=WAITING)
    log = plan.folder / 'logs' / f'{part.name}.log'
    log.parent.mkdir(parents=True, exist_ok=True)
    while cases and time.monotonic() < end:
        names, begin = [case.name for case in cases], time.time()
        code = run(Request(part.name, names, plan.scale, plan.device, str(plan.folder), end), log)
        _settle(records, cases, code, log)
        if not code:
            return
        remaining = [case for case in cases if records.read(case).started < begin]
        if len(remaining) == len(cases):
            for case in cases:
                records.write(case, status=FAILED, reason=_last_line(log))
            return
        cases = remaining


def _settle(records: Records, cases: Sequence[Case], code: Optional[int], log: Path) -> None:
    """Say what became of a case whose process ended meanwhile.

    Args:
        code: exit code of the process, None if it was ended at the limit of time.
    """
    for case in cases:
        if records.read(case).status != RUNNING:
            continue
        if code is None:
            records.write(case, status=STOPPED, reason='the time was over')
        else:
            records.write(case, status=FAILED, reason=f'exit code {code}: {_last_line(log)}')


def _last_line(log: Path) -> str:
    lines = log.read_text(errors='replace').strip().splitlines()
    return lines[-1] if lines else 'no message'


def run_worker(request: Request, log: Path) -> Optional[int]:
    """Run a process that measures cases, and end it and all its children when the time is over.

    Args:
        request: what it measures.
        log: file to which its output is appended.

    Returns:
        Its exit code, None if the time was over.
    """
    environment = dict(os.environ, PYTHONPATH=str(REPOSITORY), PYTHONUNBUFFERED='1')
    if request.device == 'cpu':
        environment['CUDA_VISIBLE_DEVICES'] = ''
    command = [sys.executable, '-m', WORKER, json.dumps(request._asdict())]
    # A compilation that is ended leaves broken files behind, which a cache would hand to the next one.
    with open(
            log, 'a',
            encoding='utf-8') as output, tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as cache:
        environment.update(TORCHINDUCTOR_CACHE_DIR=cache, TRITON_CACHE_DIR=cache)
        process = subprocess.Popen(
            command,
            cwd=REPOSITORY,
            env=environment,
            stdin=subprocess.DEVNULL,
            stdout=output,
            stderr=subprocess.STDOUT,
            start_new_session=True)
        try:
            return process.wait(max(request.end - time.monotonic(), 0.))
        except subprocess.TimeoutExpired:
            return None
        finally:
            _end(process)


def _end(process: subprocess.Popen) -> None:
    """End a process, if it runs, and the children that it left."""
    for number, grace in ((signal.SIGTERM, GRACE), (signal.SIGKILL, None)):
        try:
            os.killpg(process.pid, number)
            process.wait(grace)
        except (ProcessLookupError, subprocess.TimeoutExpired):
            continue
