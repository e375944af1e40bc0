"""Measure and write a report: what ``tools/analysis_tools/gpu_report.py`` calls."""
import time
from pathlib import Path
from typing import Any, Dict, Optional, Sequence

import torch

from .machine import describe_gpu, find_commit
from .parts import PARTS
from .records import check_settings
from .run_parts import Plan, run_parts
from .write_report import write_report

RESERVE = 20.
"""Seconds of the time limit for imports and pictures."""


def make_report(folder: Path,
                device: str,
                budget: float,
                parts: Optional[Sequence[str]] = None,
                scale: str = 'full') -> None:
    """Measure what is not measured yet, then write the report; also when the measurement is interrupted.

    Args:
        folder: of the report, with the results of earlier runs.
        device: ``'cuda'`` or ``'cpu'``.
        budget: time limit in seconds. 0 writes the report of what is measured.
        parts: names of the parts to measure, None for all. The report has all parts.
        scale: key of ``SCALES``.

    Raises:
        ValueError: the folder has results of other settings, or a file that is no result.
    """
    end, folder = time.monotonic() + max(budget - RESERVE, 0.), folder.resolve()
    settings = describe_settings(device, scale)
    check_settings(folder, settings)
    reason = 'torch finds no GPU' if device == 'cuda' and not torch.cuda.is_available() else ''
    selected = [part for name, part in PARTS.items() if parts is None or name in parts]
    try:
        run_parts(Plan(selected, scale, device, folder, reason), end)
    finally:
        counts = write_report(folder, list(PARTS.values()), settings)
        numbers = ', '.join(f'{number} {status}' for status, number in counts.items())
        print(f'Wrote {folder / "report.md"} of {numbers}')


def describe_settings(device: str, scale: str) -> Dict[str, Any]:
    """What all results of a report have in common."""
    gpu = describe_gpu()['GPU'] if device == 'cuda' else 'not used'
    return dict(scale=scale, device=device, GPU=gpu, torch=torch.__version__, commit=find_commit())
