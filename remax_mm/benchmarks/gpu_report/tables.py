"""Tables of the report, in Markdown, from the stored records."""
from itertools import product
from typing import Any, Callable, Dict, List, Sequence

from .records import DONE, Record
from .scale import Scale
from .step_shares import SECTIONS

GIB, MIB = 2**30, 2**20


def make_table(head: Sequence[str], rows: Sequence[Sequence[Any]], texts: int = 1) -> str:
    """A Markdown table; the first ``texts`` columns are text, the others are numbers."""
    lines = [head, ['---'] * texts + ['---:'] * (len(head) - texts), *rows]
    return '\n'.join('| ' + ' | '.join(str(cell) for cell in line) + ' |' for line in lines)


def machine_table(records: Sequence[Record], scale: Scale) -> str:
    """What the measurements ran on."""
    rows = [pair for record in records for pair in record.result.items()]
    return make_table(['property', 'value'], rows, texts=2)


def outcome_table(records: Sequence[Record], scale: Scale) -> str:
    """Tests by file, and what failed."""
    counts = ('passed', 'failed', 'skipped')
    table = make_table(['file', *counts], [[f'`tests/cuda/{record.name}`', *map(record.result.get, counts)]
                                           for record in records])
    failures = [f'- `{failure}`' for record in records for failure in record.result['failures']]
    return '\n'.join([table, '', 'Failed:', '', *failures]) if failures else table


def training_table(records: Sequence[Record], scale: Scale) -> str:
    """Speed and memory at the batch size of the recipes and at the fastest one, and what fits."""
    rows = []
    for record in records:
        points = _points_by_size(record)
        fastest = max(points.values(), key=lambda point: point['images_per_second'])
        recipe, largest = points.get(scale.batch_size), max(points)
        is_limit = record.status == DONE and record.result['too_large'] is not None
        rows.append([
            record.options['model'],
            record.options['precision'],
            'compiled' if record.options['compiled'] else 'eager',
            *(_speed_and_memory(recipe) if recipe else ['', '']),
            fastest['batch_size'],
            *_speed_and_memory(fastest),
            largest if is_limit else f'{largest} or more',
            f'{points[min(points)]["first_step"]:.0f}',
        ])
    size = scale.batch_size
    head = [
        'model', 'precision', 'mode', f'images/s, batch {size}', f'GiB, batch {size}', 'fastest batch',
        'images/s', 'GiB', 'largest batch', 'first step, s'
    ]
    return make_table(head, rows, texts=3)


def _points_by_size(record: Record) -> Dict[int, Dict[str, Any]]:
    return {point['batch_size']: point for point in record.result['points']}


def _speed_and_memory(point: Dict[str, Any]) -> List[str]:
    return [f'{point["images_per_second"]:.1f}', f'{point["peak_memory"] / GIB:.2f}']


def comparison_table(records: Sequence[Record], others: Sequence[Record], scale: Scale) -> str:
    """Training steps relative to those of Mask2Former at the same size, precision and batch size.

    Args:
        records: of this package's models.
        others: of Mask2Former.
        scale: its models have the sizes: those of Mask2Former are one pixel smaller.

    Returns:
        A table, '' if there is nothing to compare.
    """
    sides = {model.title: model.side for model in (*scale.models, *scale.mask2former)}

    def is_comparable(record: Record, other: Record) -> bool:
        same_size = sides[record.options['model']] == sides[other.options['model']] + 1
        return same_size and all(record.options[name] == other.options[name]
                                 for name in ('precision', 'compiled'))

    rows = []
    for record, other in product(records, others):
        points, their_points = _points_by_size(record), _points_by_size(other)
        common = points.keys() & their_points.keys()
        if is_comparable(record, other) and common:
            ours, theirs = points[max(common)], their_points[max(common)]
            ratios = [ours[name] / theirs[name] for name in ('seconds', 'peak_memory')]
            rows.append([
                record.options['model'], record.options['precision'],
                max(common), *(f'{ratio:.2f}' for ratio in ratios)
            ])
    head = ['model', 'precision', 'batch', 'time relative to Mask2Former', 'memory relative to Mask2Former']
    return make_table(head, rows, texts=2) if rows else ''


def inference_table(records: Sequence[Record], scale: Scale) -> str:
    """Latency of one image by engine."""
    rows = []
    for record in records:
        network, whole = record.result['network'], record.result['whole']
        memory = record.result.get('peak_memory')
        rows.append([
            record.options['model'], record.options['engine'],
            *(f'{1e3 * seconds:.1f}' for seconds in (network['median'], network['p95'],
                                                     whole['median'] - network['median'], whole['median'])),
            f'{1 / whole["median"]:.1f}', '' if memory is None else f'{memory / MIB:.0f}'
        ])
    head = ['model', 'engine', 'network, ms', 'p95, ms', 'merging, ms', 'both, ms', 'images/s', 'MiB']
    return make_table(head, rows, texts=2)


def share_table(records: Sequence[Record], scale: Scale) -> str:
    """Percentages of a training step."""
    rows = []
    for record in records:
        seconds, step = record.result['seconds'], record.result['step']
        rows.append([
            record.options['model'], record.options['precision'], record.result['batch_size'],
            f'{1e3 * step:.0f}', *(f'{100 * seconds[name] / step:.1f}' for name in SECTIONS)
        ])
    head = ['model', 'precision', 'batch', 'step, ms', *(f'{name}, %' for name in SECTIONS)]
    return make_table(head, rows, texts=2)


def mini_table(records: Sequence[Record], scale: Scale) -> str:
    """Quality and time of the short training."""
    rows = [[
        record.name, record.result['precision'], record.result['iterations'],
        f'{1e3 * record.result["seconds"]:.0f}', *(f'{value:.1f}'
                                                   for value in record.result['metrics'].values())
    ] for record in records]
    metrics = records[0].result['metrics'] if records else {}
    return make_table(['model', 'precision', 'iterations', 'ms per iteration', *metrics], rows, texts=2)


def checkpointing_table(records: Sequence[Record], scale: Scale) -> str:
    """Time and memory with activation checkpointing, relative to those without."""
    rows = []
    for record in records:
        result = record.result
        rows.append([
            record.options['model'], record.options['precision'], result['plain']['batch_size'],
            *(f'{result[name]["peak_memory"] / GIB:.2f}' for name in ('plain', 'checkpointed')),
            f'{result["memory"]:.2f}', f'{result["time"]:.2f}'
        ])
    head = ['model', 'precision', 'batch', 'GiB', 'GiB with `with_cp`', 'memory, relative', 'time, relative']
    return make_table(head, rows, texts=2)


TABLES: Dict[str, Callable[[Sequence[Record], Scale], str]] = dict(
    machine=machine_table,
    tests=outcome_table,
    training=training_table,
    inference=inference_table,
    mask2former=training_table,
    shares=share_table,
    mini=mini_table,
    checkpointing=checkpointing_table)
