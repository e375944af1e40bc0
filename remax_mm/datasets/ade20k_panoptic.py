"""The ADE20K panoptic dataset, and the order of its classes in the official release."""
from mmdet.datasets import ADE20KPanopticDataset
from mmdet.registry import DATASETS

from .panoptic_dataset import PanopticMapDataset

SCENE_PARSING_CLASSES = tuple(
    ('wall; building; sky; floor; tree; ceiling; road, route; bed; window; grass; cabinet; sidewalk, '
     'pavement; person; earth, ground; door; table; mountain, mount; plant; curtain; chair; car; water; '
     'painting, picture; sofa; shelf; house; sea; mirror; rug; field; armchair; seat; fence; desk; rock, '
     'stone; wardrobe, closet, press; lamp; tub; rail; cushion; base, pedestal, stand; box; column, '
     'pillar; signboard, sign; chest of drawers, chest, bureau, dresser; counter; sand; sink; skyscraper; '
     'fireplace; refrigerator, icebox; grandstand, covered stand; path; stairs; runway; case, display '
     'case, showcase, vitrine; pool table, billiard table, snooker table; pillow; screen door, screen; '
     'stairway, staircase; river; bridge, span; bookcase; blind, screen; coffee table; toilet, can, '
     'commode, crapper, pot, potty, stool, throne; flower; book; hill; bench; countertop; stove; palm, '
     'palm tree; kitchen island; computer; swivel chair; boat; bar; arcade machine; hovel, hut, hutch, '
     'shack, shanty; bus; towel; light; truck; tower; chandelier; awning, sunshade, sunblind; street lamp;'
     ' booth; tv; airplane; dirt track; clothes; pole; land, ground, soil; bannister, banister, '
     'balustrade, balusters, handrail; escalator, moving staircase, moving stairway; ottoman, pouf, '
     'pouffe, puff, hassock; bottle; buffet, counter, sideboard; poster, posting, placard, notice, bill, '
     'card; stage; van; ship; fountain; conveyer belt, conveyor belt, conveyer, conveyor, transporter; '
     'canopy; washer, automatic washer, washing machine; plaything, toy; pool; stool; barrel, cask; '
     'basket, handbasket; falls; tent; bag; minibike, motorbike; cradle; oven; ball; food, solid food; '
     'step, stair; tank, storage tank; trade name; microwave; pot; animal; bicycle; lake; dishwasher; '
     'screen; blanket, cover; sculpture; hood, exhaust hood; sconce; vase; traffic light; tray; trash can;'
     ' fan; pier; crt screen; plate; monitor; bulletin board; shower; radiator; glass, drinking glass; '
     'clock; flag').split('; '))
"""Value v of the semantic annotation of the release is class v - 1; 0 is unlabeled. Spelling of mmdet.

Sources: CSAILVision/sceneparsing, objectInfo150.txt; facebookresearch/Mask2Former,
datasets/prepare_ade20k_pan_seg.py.
"""


@DATASETS.register_module()
class ADE20KPanopticMapDataset(PanopticMapDataset):
    """ADE20K with 100 thing and 50 stuff classes; mmdet has another class named ADE20KPanopticDataset.

    Reads the files that ``tools/dataset_converters/ade20k_panoptic.py`` writes into the folder of the
    download::

        ADEChallengeData2016
        ├── images/{training,validation}/ADE_{train,val}_*.jpg
        ├── ade20k_panoptic_{train,val}.json
        └── ade20k_panoptic_{train,val}/ADE_{train,val}_*.png

    Classes have the names and the order of mmdet: things as in the instance segmentation challenge of 2017,
    then stuff as in the scene parsing challenge.

    Arguments and records are those of :class:`PanopticMapDataset`. In files of other converters, the
    area of stuff may include pixels that things cover, and stuff may be listed without a visible pixel. For
    such files, set ``check_segments=False`` in ``LoadPanopticMap`` and ``LoadSegmentIds``, and
    ``check_ids=False`` in the metric.
    """

    METAINFO = ADE20KPanopticDataset.METAINFO
