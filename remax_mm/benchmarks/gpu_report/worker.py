"""Measure cases of one part, in a process of its own.

    python -m remax_mm.benchmarks.gpu_report.worker REQUEST

The request is JSON with the fields of :class:`Request`. The process stores the result of each case as soon as
it is known. After an error it ends, because it may not be able to use the GPU any more; the exit code is 1.
"""
import json
import sys
import time
import traceback
from pathlib import Path
from typing import NamedTuple, Sequence

import torch

from .part import CannotRun, Context, OutOfTime, Part, share_time
from .records import DONE, FAILED, RUNNING, SKIPPED, STOPPED, Case, Records
from .scale import SCALES


class Request(NamedTuple):
    """What to measure.

    Attributes:
        part: name of the part.
        cases: names of its cases, in this order.
        scale: key of ``SCALES``.
        device: ``'cuda'`` or ``'cpu'``.
        folder: of the report, absolute.
        end: of the time of all cases together, by ``time.monotonic``, whose clock all processes share.
    """
    part: str
    cases: Sequence[str]
    scale: str
    device: str
    folder: str
    end: float


def measure_cases(part: Part, cases: Sequence[Case], request: Request) -> None:
    """Measure cases until the time is over.

    Raises:
        SystemExit: a case failed; the cases after it are not measured.
    """
    for number, case in enumerate(cases):
        left = request.end - time.monotonic()
        if left <= 0:
            break
        measure_case(part, case, request, share_time(left, [case.weight for case in cases[number:]]))


def measure_case(part: Part, case: Case, request: Request, seconds: float) -> None:
    """Measure a case and store what becomes of it.

    Raises:
        SystemExit: the case failed.
    """
    start, records = time.monotonic(), Records(Path(request.folder), part.name)

    def elapsed() -> float:
        return time.monotonic() - start

    previous = records.read(case).result
    context = Context(case, SCALES[request.scale], request.device, Path(request.folder), previous,
                      lambda more: elapsed() + more <= seconds)
    print(f'---- {case.name}', flush=True)
    records.write(case, status=RUNNING, reason='', started=time.time())
    try:
        for result in part.measure(context):
            records.write(case, result=result)
        status, reason = DONE, ''
    except CannotRun as error:
        status, reason = SKIPPED, str(error)
    except OutOfTime as error:
        status, reason = STOPPED, str(error)
    except torch.cuda.OutOfMemoryError:
        traceback.print_exc()
        status, reason = SKIPPED, 'out of memory'
    except Exception as error:
        traceback.print_exc()
        records.write(case, status=FAILED, reason=describe(error), seconds=elapsed())
        raise SystemExit(1) from error
    records.write(case, status=status, reason=reason, seconds=elapsed())


def describe(error: Exception) -> str:
    """Type and first line of an error."""
    message = str(error).strip().splitlines()[:1]
    return ': '.join([type(error).__name__, *message])


def main(arguments: Sequence[str]) -> None:
    from .parts import PARTS
    request = Request(**json.loads(arguments[0]))
    part = PARTS[request.part]
    known = {case.name: case for case in part.list_cases(SCALES[request.scale])}
    measure_cases(part, [known[name] for name in request.cases], request)


if __name__ == '__main__':
    main(sys.argv[1:])
