"""Table, numbers and plot of the inference benchmark."""
import platform
from pathlib import Path
from typing import Any, Dict, List, Optional, Sequence, Tuple

import torch

from .inference_speed import Case, Speed

Row = Tuple[Case, Speed]


def find_baseline(row: Row, rows: Sequence[Row]) -> Optional[Speed]:
    """Speed of the older commit on the config, size and threads of a row."""
    case = row[0]
    for other, speed in rows:
        same = (other.name, other.request.size, other.request.threads) == (case.name, case.request.size,
                                                                           case.request.threads)
        if same and other.commit:
            return speed
    return None


def format_rows(rows: Sequence[Row]) -> str:
    """A Markdown table; relative times only where there is an older commit."""
    relative = any(case.commit for case, _ in rows)
    head = [
        'config', 'engine', 'size', 'threads', 'network ms', 'p95', 'images/s', 'with merging ms', 'p95',
        'images/s', 'MiB'
    ]
    head += ['network, relative', 'with merging, relative'] if relative else []
    lines = [head, ['---'] * 4 + ['---:'] * (len(head) - 4)]
    for row in rows:
        case, speed = row
        height, width = case.request.size
        line = [
            case.name, f'{case.request.engine} {case.commit}'.strip(), f'{height}x{width}',
            str(case.request.threads)
        ]
        for latency in (speed.network, speed.whole):
            line += [
                f'{1e3 * latency.median:.1f}', f'{1e3 * latency.p95:.1f}', f'{latency.images_per_second:.2f}'
            ]
        line.append(f'{speed.peak_memory / 2**20:.0f}')
        if relative:
            baseline = find_baseline(row, rows)
            line += ['', ''] if baseline is None else [
                f'{speed.network.median / baseline.network.median:.3f}',
                f'{speed.whole.median / baseline.whole.median:.3f}'
            ]
        lines.append(line)
    return '\n'.join('| ' + ' | '.join(line) + ' |' for line in lines)


def describe_machine() -> Dict[str, Any]:
    """Processor, cores and versions."""
    processor = platform.processor() or platform.machine()
    cpuinfo = Path('/proc/cpuinfo')
    if cpuinfo.exists():
        names = [
            line.split(':')[1].strip() for line in cpuinfo.read_text().splitlines() if 'model name' in line
        ]
        processor = names[0] if names else processor
    machine = dict(
        processor=processor,
        capability=torch.backends.cpu.get_cpu_capability(),
        cores=torch.get_num_threads(),
        torch=torch.__version__,
        python=platform.python_version())
    if torch.cuda.is_available():
        machine['gpu'] = torch.cuda.get_device_name()
    return machine


def to_numbers(rows: Sequence[Row]) -> List[Dict[str, Any]]:
    """The rows for a JSON file; times in seconds, memory in bytes."""
    return [
        dict(
            case.request._asdict(),
            commit=case.commit,
            network=speed.network._asdict(),
            whole=speed.whole._asdict(),
            peak_memory=speed.peak_memory) for case, speed in rows
    ]


def plot_rows(rows: Sequence[Row], path: Path) -> None:
    """Write a bar chart of the medians: the network, and the merging on top of it."""
    import matplotlib
    matplotlib.use('Agg')
    from matplotlib import pyplot

    labels = [
        f'{case.name}\n{case.request.engine} {case.commit} {case.request.size[0]}, '
        f'{case.request.threads} threads' for case, _ in rows
    ]
    network = [1e3 * speed.network.median for _, speed in rows]
    merging = [1e3 * (speed.whole.median - speed.network.median) for _, speed in rows]
    figure, axis = pyplot.subplots(figsize=(8, 1 + 0.5 * len(rows)))
    axis.barh(labels, network, label='network')
    axis.barh(labels, merging, left=network, label='merging')
    axis.invert_yaxis()
    axis.set_xlabel('milliseconds per image, median')
    axis.legend()
    figure.tight_layout()
    figure.savefig(path)
    pyplot.close(figure)
