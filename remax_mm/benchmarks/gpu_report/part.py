"""What a part of the report is, and what ends one of its cases."""
from pathlib import Path
from typing import Any, Callable, Dict, Iterator, List, NamedTuple, Sequence

from .records import Case
from .scale import Scale


class CannotRun(Exception):
    """A case that cannot run on this machine; the message says why."""


class OutOfTime(Exception):
    """A case whose limit of time does not allow more; the message says what is missing."""


class Context(NamedTuple):
    """What a measurement gets.

    Attributes:
        case: what is measured.
        scale: models and numbers.
        device: ``'cuda'`` or ``'cpu'``.
        folder: of the report, absolute; for data and trainings.
        previous: result of an earlier run that was stopped, {} if there is none.
        has_time: whether the case has a number of seconds left.
    """
    case: Case
    scale: Scale
    device: str
    folder: Path
    previous: Dict[str, Any]
    has_time: Callable[[float], bool]


class Part(NamedTuple):
    """A part of the report.

    Attributes:
        name: for ``--parts`` and files.
        title: heading in the report.
        share: of the time, relative to the other parts.
        list_cases: the cases at a scale, the most informative ones first.
        measure: yields the result of a case, each time with more numbers than before. Raises ``CannotRun`` or
            ``OutOfTime``.
        needs_device: whether it is skipped where there is no GPU.
    """
    name: str
    title: str
    share: float
    list_cases: Callable[[Scale], List[Case]]
    measure: Callable[[Context], Iterator[Dict[str, Any]]]
    needs_device: bool = True


def share_time(seconds: float, shares: Sequence[float]) -> float:
    """The time of the first of several things; what it does not use is shared by the others.

    Args:
        seconds: that are left.
        shares: of the things that are not done yet, positive.
    """
    return max(seconds, 0.) * shares[0] / sum(shares)
