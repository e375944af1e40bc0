"""The archive of predictions that COCO's evaluation server takes."""
import zipfile
from pathlib import Path
from typing import NamedTuple


class SubmissionPaths(NamedTuple):
    """The JSON file, the folder of PNGs and the archive of a submission."""
    json: Path
    pngs: Path
    archive: Path


def submission_paths(prefix: str) -> SubmissionPaths:
    """Paths of the exported predictions with a prefix, and of their archive."""
    return SubmissionPaths(Path(f'{prefix}.json'), Path(prefix), Path(f'{prefix}.zip'))


def zip_submission(prefix: str) -> Path:
    """Pack exported predictions, with the JSON file and the folder at the top of the archive.

    Args:
        prefix: Path of the JSON file and of the PNG folder, without suffix.

    Returns:
        Path of the archive.
    """
    paths = submission_paths(prefix)
    with zipfile.ZipFile(paths.archive, 'w') as archive:
        archive.write(paths.json, paths.json.name, zipfile.ZIP_DEFLATED)
        for png in sorted(paths.pngs.glob('*.png')):
            archive.write(png, f'{paths.pngs.name}/{png.name}')
    return paths.archive
