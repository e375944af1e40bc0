"""Config of a dataset whose files do not exist."""
from typing import Any, Dict, List


def missing_dataset(metainfo: Dict[str, Any], pipeline: List[dict]) -> Dict[str, Any]:
    """For code that reads only the classes and the pipeline of a test dataset."""
    return dict(
        type='CocoPanopticMapDataset',
        ann_file='nowhere.json',
        metainfo=metainfo,
        test_mode=True,
        data_prefix=dict(img='nowhere'),
        pipeline=pipeline)
