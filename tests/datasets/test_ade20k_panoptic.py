"""The classes of ADE20K against the lists of mmseg and of Mask2Former."""
from mmseg.datasets import ADE20KDataset

from remax_mm.datasets.ade20k_panoptic import SCENE_PARSING_CLASSES, ADE20KPanopticMapDataset

# facebookresearch/Mask2Former, datasets/ade20k_instance_catid_mapping.txt: values in the semantic annotation
# of the classes 1 to 100 of the instance annotation.
SEMANTIC_OF_INSTANCE = [
    8, 9, 11, 13, 15, 16, 19, 20, 21, 23, 24, 25, 28, 31, 32, 33, 34, 36, 37, 38, 39, 40, 42, 43, 44, 45, 46,
    48, 50, 51, 54, 56, 57, 58, 59, 63, 65, 66, 67, 68, 70, 71, 72, 73, 74, 75, 76, 77, 79, 81, 82, 83, 84,
    86, 87, 88, 89, 90, 91, 93, 94, 96, 98, 99, 103, 104, 105, 108, 109, 111, 112, 113, 116, 117, 119, 120,
    121, 122, 124, 125, 126, 127, 128, 130, 131, 133, 134, 135, 136, 137, 138, 139, 140, 143, 144, 145, 147,
    148, 149, 150
]


def test_metainfo__things_are_the_instance_classes():
    metainfo = ADE20KPanopticMapDataset.METAINFO
    assert list(
        metainfo['thing_classes']) == [SCENE_PARSING_CLASSES[value - 1] for value in SEMANTIC_OF_INSTANCE]
    stuff = [name for value, name in enumerate(SCENE_PARSING_CLASSES, 1) if value not in SEMANTIC_OF_INSTANCE]
    assert list(metainfo['stuff_classes']) == stuff and len(stuff) == 50
    assert list(metainfo['classes']) == [*metainfo['thing_classes'], *stuff]


def test_scene_parsing_classes__order_of_mmseg():
    """mmseg uses one of the words of our names; the remaining pairs are synonyms."""
    pairs = zip(SCENE_PARSING_CLASSES, ADE20KDataset.METAINFO['classes'], strict=True)
    assert [(ours, theirs) for ours, theirs in pairs
            if theirs.strip() not in ours.split(', ')] == [('window', 'windowpane'), ('tub', 'bathtub'),
                                                           ('rail', 'railing'),
                                                           ('street lamp', 'streetlight'),
                                                           ('tv', 'television receiver'),
                                                           ('clothes', 'apparel'), ('pool', 'swimming pool'),
                                                           ('falls', 'waterfall'), ('trash can', 'ashcan')]
