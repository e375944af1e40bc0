"""All checks of a dataset, in one pass over its JSON file and its images."""
from functools import partial

from remax_mm.datasets.panoptic_dataset import PanopticMapDataset
from remax_mm.panoptic_format import map_images
from .dataset_report import DatasetReport, summarize_dataset
from .image_check import check_image
from .json_check import check_classes, check_json


def check_dataset(dataset: PanopticMapDataset, processes: int = 1) -> DatasetReport:
    """Check the JSON file of a dataset, then each of its images.

    Args:
        dataset: A dataset with ground truth; its annotations need not be loaded (``lazy_init=True``). The
            class list is checked if the dataset class has one.
        processes: Number of processes that check images.

    Raises:
        FileNotFoundError: there is no JSON.
    """
    png_dir, image_dir = dataset.data_prefix['seg'], dataset.data_prefix['img']
    found = check_json(dataset.ann_file, image_dir, png_dir, dataset.photo_name, dataset.png_name)
    findings = list(found.findings)
    if dataset.names_classes:
        classes = dataset.metainfo
        findings += check_classes(found.categories, classes['thing_classes'], classes['stuff_classes'],
                                  dataset.ann_file)

    check = partial(check_image, categories={category.id: category for category in found.categories})
    reports = list(map_images(check, found.tasks, processes))
    return summarize_dataset(found.categories, reports, findings)
