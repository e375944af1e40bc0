"""Part of the report on the machine and the versions."""
import os
import shutil
import subprocess
import time
from typing import Any, Dict, Iterator, List, Optional, Sequence

import torch

from remax_mm.analysis.version_comparison import REPOSITORY
from remax_mm.compat import has_mmcv_ops, host_versions
from remax_mm.version import __version__
from ..inference_report import describe_machine
from .part import Context
from .records import Case
from .scale import Scale


def list_machine_cases(scale: Scale) -> List[Case]:
    """One case."""
    return [Case('machine')]


def measure_machine(context: Context) -> Iterator[Dict[str, Any]]:
    """GPU, driver, CPU, versions, commit and date."""
    machine = describe_machine()
    host = {name: ' '.join(version) for name, version in host_versions().items() if version is not None}
    yield {
        **describe_gpu(),
        'CPU': f'{machine["processor"]}, {os.cpu_count()} cores',
        'memory': f'{os.sysconf("SC_PAGE_SIZE") * os.sysconf("SC_PHYS_PAGES") / 2**30:.0f} GiB',
        'Python': machine['python'],
        'torch': machine['torch'],
        **host,
        'compiled ops of mmcv': 'yes' if has_mmcv_ops() else 'no',
        'remax_mm': __version__,
        'commit': find_commit(),
        'date': time.strftime('%Y-%m-%d'),
    }


def describe_gpu() -> Dict[str, str]:
    """Name, memory, driver and libraries of the first GPU."""
    if not torch.cuda.is_available():
        return dict(GPU='none that torch can use')
    properties = torch.cuda.get_device_properties(0)
    driver = first_line(['nvidia-smi', '--query-gpu=driver_version', '--format=csv,noheader'])
    return {
        'GPU': f'{properties.name}, {properties.total_memory / 2**30:.0f} GiB, compute capability '
               f'{properties.major}.{properties.minor}',
        'driver': driver or 'unknown',
        'CUDA': str(torch.version.cuda),
        'cuDNN': str(torch.backends.cudnn.version()),
        'TF32 in convolutions': 'yes' if torch.backends.cudnn.allow_tf32 else 'no',
        'float32 matrix products': torch.get_float32_matmul_precision(),
    }  # yapf: disable


def find_commit() -> str:
    """The commit of the checkout, with ``-dirty`` if files differ from it."""
    command = ['git', '-C', str(REPOSITORY), 'describe', '--always', '--dirty', '--exclude', '*']
    return first_line(command) or 'unknown'


def first_line(command: Sequence[str]) -> Optional[str]:
    """First line that a program prints, None if it fails or is not installed."""
    if shutil.which(command[0]) is None:
        return None
    done = subprocess.run(command, capture_output=True, text=True)
    return next(iter(done.stdout.splitlines()), None) if done.returncode == 0 else None
