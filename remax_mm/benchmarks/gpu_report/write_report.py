"""Write report.md, report.json and the pictures from the stored records."""
from collections import Counter
from pathlib import Path
from typing import Any, Dict, Iterator, List, Sequence

from .part import Part
from .plots import PLOTS
from .records import DONE, RUNNING, WAITING, Record, Records, write_json
from .scale import SCALES, Scale
from .tables import TABLES, comparison_table

NOTES = dict(
    training='Training steps on drawn images with random weights, from the batch to the updated weights, '
    'without data loading. Half precision is automatic mixed precision. Compiled steps are those of '
    "mmengine's `compile=True`. The first step chooses kernels or compiles. The largest batch is the largest "
    'power of two that fits.',
    inference='One image after the other, random weights, the engines of '
    '`tools/analysis_tools/benchmark_inference.py`. Merging gets drawn masks with 20 confident slots.',
    mask2former="As above. The sides of Mask2Former's images are one pixel smaller, because it pads to "
    'multiples of 32.',
    shares='With the data loader of the recipe on drawn images. The step waits for the device between its '
    'sections, so it takes longer than without this measurement.',
    mini='ReMaX on the drawn mini dataset, evaluated on its validation images, as `make demo`.',
    checkpointing='`with_cp=True` of backbone, pixel decoder and semantic head.')
MEMORY = dict(
    cuda='Memory is the peak of what PyTorch allocates, with weights, gradients and optimizer.',
    cpu='Memory is the peak of the tensors that a step creates.')
TRIAL = 'A trial of the tool with tiny models, no measurement of the models that it is about.'


def write_report(folder: Path, parts: Sequence[Part], settings: Dict[str, Any]) -> Dict[str, int]:
    """Write the report of all results in a folder.

    Args:
        folder: of the report; gets ``report.md``, ``report.json`` and ``<part>.png``.
        parts: of the report, also those without a result.
        settings: see :func:`check_settings`, with ``scale``, ``device`` and ``commit``.

    Returns:
        The number of cases with each status.
    """
    scale = SCALES[settings['scale']]
    records = {part.name: Records(folder, part.name).read_all(part.list_cases(scale)) for part in parts}
    for part in parts:
        measured = with_result(records[part.name])
        if measured and part.name in PLOTS:
            PLOTS[part.name](measured, folder / f'{part.name}.png')
    text = '\n\n'.join(_report(parts, records, scale, settings))
    (folder / 'report.md').write_text(f'{text}\n', encoding='utf-8')
    results = {name: [record._asdict() for record in found] for name, found in records.items()}
    write_json(folder / 'report.json', dict(settings, parts=results))
    return Counter(record.status for found in records.values() for record in found)


def _report(parts: Sequence[Part], records: Dict[str, List[Record]], scale: Scale,
            settings: Dict[str, Any]) -> Iterator[str]:
    """The paragraphs."""
    yield '# GPU report'
    tiny = settings['scale'] == 'tiny'
    command = f'python tools/analysis_tools/gpu_report.py --device {settings["device"]}'
    yield f'`{command}{" --tiny" if tiny else ""}`, commit {settings["commit"]}. {MEMORY[settings["device"]]}'
    if tiny:
        yield TRIAL
    for part in parts:
        found = records[part.name]
        measured = with_result(found)
        yield f'## {part.title}'
        if measured:
            yield from _results(part, measured, records, scale)
        missing = '\n'.join(missing_lines(found))
        if missing:
            yield missing


def _results(part: Part, measured: Sequence[Record], records: Dict[str, List[Record]],
             scale: Scale) -> Iterator[str]:
    if part.name in NOTES:
        yield NOTES[part.name]
    yield TABLES[part.name](measured, scale)
    if part.name == 'mask2former':
        kinds = sorted({record.result['deformable_attention'] for record in measured})
        yield f'Deformable attention: {", ".join(kinds)}.'
        table = comparison_table(with_result(records.get('training', [])), measured, scale)
        if table:
            yield table
    if part.name in PLOTS:
        yield f'![{part.title}]({part.name}.png)'


def with_result(records: Sequence[Record]) -> List[Record]:
    """Records with numbers; a case that was stopped may have some."""
    return [record for record in records if record.result]


def missing_lines(records: Sequence[Record]) -> List[str]:
    """What is not complete, by reason."""
    by_reason: Dict[str, List[str]] = {}
    for record in records:
        if record.status != DONE:
            state = 'not measured yet' if record.status in (WAITING,
                                                            RUNNING) else f'not measured, {record.status}'
            state = 'incomplete' if record.result else state
            reason = f'{state}: {record.reason}' if record.reason else state
            by_reason.setdefault(reason, []).append(record.name)
    return [
        f'- {reason} ({"all" if len(names) == len(records) else "; ".join(names)})'
        for reason, names in by_reason.items()
    ]
