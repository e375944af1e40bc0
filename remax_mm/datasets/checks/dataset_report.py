"""The report on a checked panoptic dataset, as numbers, as text and as JSON."""
from typing import Dict, List, NamedTuple, Sequence

from terminaltables import AsciiTable

from remax_mm.panoptic_format import KINDS, Finding
from .image_check import ImageReport
from .json_check import Category


class ClassSummary(NamedTuple):
    """Numbers of images, segments and pixels of a class in the dataset, without crowd regions."""
    name: str
    is_thing: bool
    images: int
    segments: int
    pixels: int


class DatasetReport(NamedTuple):
    """Summary of a dataset, and all findings.

    Attributes:
        images: Number of images whose PNG could be read.
        void_ratio, crowd_ratio: Unlabeled pixels and crowd pixels over all pixels of these images, in [0, 1].
        classes: One summary per class, things first.
        findings: Defects of the JSON and of all images.
    """
    images: int
    void_ratio: float
    crowd_ratio: float
    classes: List[ClassSummary]
    findings: List[Finding]

    @property
    def has_errors(self) -> bool:
        """Whether a finding breaks training or evaluation."""
        return any(KINDS[finding.kind].is_error for finding in self.findings)

    @property
    def counts(self) -> Dict[str, int]:
        """Number of findings of each kind that occurs, errors first."""
        found = {kind: sum(finding.kind == kind for finding in self.findings) for kind in KINDS}
        order = sorted(found, key=lambda kind: not KINDS[kind].is_error)
        return {kind: found[kind] for kind in order if found[kind]}


def summarize_dataset(categories: Sequence[Category], images: Sequence[ImageReport],
                      findings: Sequence[Finding]) -> DatasetReport:
    """Combine the reports of all images.

    Args:
        categories: Categories of the JSON, in any order.
        images: One report for each image.
        findings: Defects of the JSON and of the folder of PNGs.
    """
    pixels = max(sum(image.pixels for image in images), 1)
    classes = [
        ClassSummary(
            name=category.name,
            is_thing=category.is_thing,
            images=sum(category.id in image.class_segments for image in images),
            segments=sum(image.class_segments.get(category.id, 0) for image in images),
            pixels=sum(image.class_pixels.get(category.id, 0) for image in images))
        for category in sorted(categories, key=lambda category: (not category.is_thing, category.id))
    ]
    return DatasetReport(
        images=sum(image.pixels > 0 for image in images),
        void_ratio=sum(image.void for image in images) / pixels,
        crowd_ratio=sum(image.crowd for image in images) / pixels,
        classes=classes,
        findings=[*findings, *(finding for image in images for finding in image.findings)])


def format_report(report: DatasetReport, most: int = 5) -> str:
    """Format a report as text: a table of the classes, and up to ``most`` findings of each kind."""
    things = sum(summary.is_thing for summary in report.classes)
    lines = [
        f'{report.images} images, {things} things and {len(report.classes) - things} stuff classes; '
        f'void {report.void_ratio:.1%}, crowd {report.crowd_ratio:.1%} of the pixels', ''
    ]
    total = max(sum(summary.pixels for summary in report.classes), 1)
    rows = [['class', 'kind', 'images', 'segments', 'pixels']]
    rows += [[
        s.name, 'thing' if s.is_thing else 'stuff',
        str(s.images),
        str(s.segments), f'{100 * s.pixels / total:.2f} %'
    ] for s in report.classes]
    lines += [AsciiTable(rows).table, '']

    for kind, count in report.counts.items():
        lines.append(f'{"ERROR" if KINDS[kind].is_error else "note"} {kind}: {count}, '
                     f'{KINDS[kind].meaning}')
        found = [finding for finding in report.findings if finding.kind == kind]
        lines += [f'    {finding.file}: {finding.message}' for finding in found[:most]]
        if count > most:
            lines.append(f'    and {count - most} more')
    errors = sum(count for kind, count in report.counts.items() if KINDS[kind].is_error)
    lines += ['', f'{errors} errors' if errors else 'No errors found.']
    return '\n'.join(lines)


def report_as_dict(report: DatasetReport) -> dict:
    """Convert a report to the types of JSON."""
    return dict(
        images=report.images,
        void_ratio=report.void_ratio,
        crowd_ratio=report.crowd_ratio,
        counts=report.counts,
        classes=[summary._asdict() for summary in report.classes],
        findings=[
            dict(finding._asdict(), is_error=KINDS[finding.kind].is_error) for finding in report.findings
        ])
