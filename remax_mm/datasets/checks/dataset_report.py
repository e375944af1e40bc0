"""What a look over a panoptic dataset found, as numbers, as text and as JSON."""
from typing import Dict, List, NamedTuple, Sequence

from terminaltables import AsciiTable

from .image_check import ImageReport
from .json_check import KINDS, Category, Finding


class ClassSummary(NamedTuple):
    """A class in the whole dataset: images and segments that have it, and pixels; crowd does not count."""
    name: str
    is_thing: bool
    images: int
    segments: int
    pixels: int


class DatasetReport(NamedTuple):
    """A dataset in numbers, and all findings.

    Attributes:
        images: whose PNG could be read.
        void_share, crowd_share: of all their pixels, in [0, 1]; void is what no segment claims.
    """
    images: int
    void_share: float
    crowd_share: float
    classes: List[ClassSummary]
    findings: List[Finding]

    @property
    def has_errors(self) -> bool:
        """Whether training or evaluation would go wrong."""
        return any(KINDS[finding.kind].is_error for finding in self.findings)

    @property
    def counts(self) -> Dict[str, int]:
        """Findings of each kind that occurs, errors first."""
        found = {kind: sum(finding.kind == kind for finding in self.findings) for kind in KINDS}
        order = sorted(found, key=lambda kind: not KINDS[kind].is_error)
        return {kind: found[kind] for kind in order if found[kind]}


def summarize_dataset(categories: Sequence[Category], images: Sequence[ImageReport],
                      findings: Sequence[Finding]) -> DatasetReport:
    """Put the reports of all images together.

    Args:
        categories: of the JSON, things and stuff in any order.
        images: one report for each image.
        findings: of the dataset as a whole.
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
        void_share=sum(image.void for image in images) / pixels,
        crowd_share=sum(image.crowd for image in images) / pixels,
        classes=classes,
        findings=[*findings, *(finding for image in images for finding in image.findings)])


def format_report(report: DatasetReport, most: int = 5) -> str:
    """A text for people: the classes, the kinds of findings, and up to ``most`` of each kind."""
    things = sum(summary.is_thing for summary in report.classes)
    lines = [
        f'{report.images} images, {things} things and {len(report.classes) - things} stuff classes; '
        f'void {report.void_share:.1%}, crowd {report.crowd_share:.1%} of the pixels', ''
    ]
    total = max(sum(summary.pixels for summary in report.classes), 1)
    rows = [['class', 'kind', 'images', 'segments', 'pixels']]
    rows += [[
        s.name, 'thing' if s.is_thing else 'stuff', s.images, s.segments, f'{100 * s.pixels / total:.2f} %'
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
    lines += ['', f'{errors} errors' if errors else 'Nothing found that training would trip over.']
    return '\n'.join(lines)


def report_as_dict(report: DatasetReport) -> dict:
    """The report in types that JSON has."""
    return dict(
        images=report.images,
        void_share=report.void_share,
        crowd_share=report.crowd_share,
        counts=report.counts,
        classes=[summary._asdict() for summary in report.classes],
        findings=[
            dict(finding._asdict(), is_error=KINDS[finding.kind].is_error) for finding in report.findings
        ])
