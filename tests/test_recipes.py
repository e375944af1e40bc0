"""Configs have the recipes, losses and thresholds of the papers and of google-research/deeplab2."""
import re
from typing import Dict, Iterator, NamedTuple, Tuple

from tests.config_files import MAX_DEEPLAB, PUBLISHED, SCHEDULED, read_config

# Pattern of the names, with iterations and crop: batch, optimizer, learning rate, weight decay, schedule.
# kMaX-DeepLab and MaX-DeepLab: deeplab2, configs/{coco,cityscapes,ade20k}/{kmax,max}_deeplab.
# ReMaX: arXiv 2306.17319, Sec. 4.2 and Fig. 4 (COCO), 4.3 (Cityscapes), 4.4 (ADE20K, as COCO). It does not
# state the weight decay of Cityscapes and ADE20K; the configs have that of the short COCO schedules.
RECIPES = {
    r'kmax_.*-(50|100|150|200)k_coco-(641|1281)': (64, 'AdamW', 5e-4, 0.05, 'PolyLR'),
    r'kmax_.*-100k_ade20k-(641|1281)': (64, 'AdamW', 5e-4, 0.05, 'PolyLR'),
    r'kmax_.*-60k_cityscapes-1025x2049': (32, 'AdamW', 3e-4, 0.05, 'PolyLR'),
    r'remax(-b)?_.*-(50|100)k_(coco|ade20k)-(641|1281)': (64, 'AdamW', 6e-3, 0.005, 'MultiStepLR'),
    r'remax(-[tsmb])?_.*-(150|200)k_coco-(641|1281)': (64, 'AdamW', 6e-3, 0.02, 'MultiStepLR'),
    r'remax_.*-60k_cityscapes-1025x2049': (32, 'AdamW', 3e-3, 0.005, 'MultiStepLR'),
    r'(remax-)?max-deeplab-s_.*-(100|200|400)k_coco-(641|1025)': (64, 'Adam', 1e-3, 0, 'PolyLR'),
    r'max-deeplab-l_.*-(100|200|400)k_coco-1025': (64, 'Adam', 3e-4, 0, 'PolyLR'),
}


class Settings(NamedTuple):
    """What kMaX-DeepLab and ReMaX set for a dataset and crop."""
    num_slots: int
    drop_path_rate: float  # of the transformer decoder
    num_discriminated: int  # pixels that are sampled for instance discrimination
    sampling_temperature: float  # of these pixels
    num_semantic: int  # pixels that are sampled for the semantic loss, 0 for all
    thing_threshold: float
    stuff_threshold: float
    overlap_threshold: float
    mask_order_weight: float


# deeplab2, configs/{coco,cityscapes,ade20k}/kmax_deeplab; the 256 slots also arXiv 2306.17319, Sec. 4.3. The
# semantic loss of Cityscapes takes all pixels as in the PyTorch release.
SETTINGS: Dict[str, Settings] = {
    'coco-1281': Settings(128, 0.2, 4096, 1.5, 4096, 0.7, 0.5, 0.8, 1),
    'coco-641': Settings(128, 0.2, 4096, 1.5, 4096, 0.7, 0.5, 0.8, 1),
    'cityscapes-1025x2049': Settings(256, 0.2, 4096, 0.6, 0, 0.5, 0.3, 0.9, 0),
    'ade20k-1281': Settings(128, 0, 4096, 1.5, 4096, 0.4, 0.4, 0.8, 1),
    'ade20k-641': Settings(128, 0, 1024, 1.5, 1024, 0.4, 0.4, 0.8, 1),
}


def _sizes(pipeline: list) -> Iterator[Tuple[int, int]]:
    """(height, width) of every step with a fixed size, the steps for pasted segments included."""
    keys = dict(Resize='scale', RandomPad='size', RandomCrop='crop_size')  # each (width, height)
    for step in pipeline:
        if step.type == 'PanopticCopyPaste':
            yield from _sizes(step.partner_pipeline)
        elif step.type in keys:
            yield tuple(step[keys[step.type]])[::-1]


def test_configs__do_what_their_names_say():
    for name in SCHEDULED:
        config = read_config(name)
        batch, iterations, height, _, width = re.search(r'_8xb(\d+)-(\d+)k_\w+-(\d+)(x(\d+))?$',
                                                        name).groups()
        assert config.train_dataloader.batch_size == int(batch), name
        assert config.auto_scale_lr.base_batch_size == 8 * int(batch), name
        assert config.train_cfg.max_iters == int(iterations) * 1000, name

        crop = (int(height), int(width or height))
        assert tuple(config.model.data_preprocessor.pad_size) == tuple(config.image_size) == crop, name
        assert set(_sizes(config.train_dataloader.dataset.pipeline)) == {crop}, name
        # Images of Cityscapes are not resized.
        expected = set() if 'cityscapes' in name else {crop}
        for loader in (config.val_dataloader, config.test_dataloader):
            assert set(_sizes(loader.dataset.pipeline)) == expected, name


def test_configs__recipes_of_the_papers():
    for name in PUBLISHED:
        recipe, = (RECIPES[names] for names in RECIPES if re.fullmatch(names, name))
        config = read_config(name)
        optimizer, iterations = config.optim_wrapper.optimizer, config.train_cfg.max_iters
        warmup, decay = config.param_scheduler
        assert recipe == (config.auto_scale_lr.base_batch_size, optimizer.type, optimizer.lr,
                          optimizer.weight_decay, decay.type), name
        assert 'clip_grad' not in config.optim_wrapper, name

        assert (warmup.type, warmup.begin, warmup.end) == ('LinearLR', 0, 5000), name
        if decay.type == 'PolyLR':
            assert (decay.begin, decay.end, decay.power) == (0, iterations, 0.9), name
        else:
            assert decay.milestones == [0.85 * iterations, 0.95 * iterations] and decay.gamma == 0.1, name

        # The pretrained part learns more slowly.
        parts = ['']
        if name in MAX_DEEPLAB:
            parts = ['.stem', '.stages'] + ['.inner_decoder'] * ('-l_' in name)
        lr_mult = {f'backbone{part}': 0.1 for part in parts}
        assert config.optim_wrapper.paramwise_cfg == dict(lr_mult=lr_mult), name


def test_configs__losses_and_thresholds_of_kmax_deeplab():
    for name in set(SCHEDULED) - set(MAX_DEEPLAB):
        model = read_config(name).model
        head, test = model.panoptic_head, model.test_cfg
        decoder, criterion = head.transformer_decoder, head.criterion
        insdis, num_semantic = criterion.loss_insdis, criterion.loss_sem.get('num_samples', 0)
        settings = Settings(decoder.num_slots, decoder.drop_path_rate, insdis.num_samples,
                            insdis.sampling_temperature, num_semantic, test.thing_threshold,
                            test.stuff_threshold, test.overlap_threshold, test.mask_order_weight)
        assert settings == SETTINGS[name.split('_')[-1]], name

        losses = ('loss_cls', 'loss_dice', 'loss_mask_id', 'loss_insdis', 'loss_sem')
        assert [criterion[loss].get('loss_weight', 1) for loss in losses] == [3, 3, 0.3, 1, 1], name
        assert (test.pixel_threshold, test.class_order_weight) == (0.4, 1), name
        assert (test.thing_area, test.stuff_area) == (0, 0), name  # as in the PyTorch release


def test_configs__max_deeplab_as_in_deeplab2():
    for name in MAX_DEEPLAB:
        config = read_config(name)
        large, fine = '-l_' in name, name.endswith('1025')
        steps = {step.type: step for step in config.train_dataloader.dataset.pipeline}
        sides = [(1024 if fine else 640) * tenths // 10 + 1 for tenths in range(5, 16)]
        assert steps['RandomChoiceResize'].scales == [(side, side) for side in sides], name
        assert {'RandomPad', 'RandomCrop', 'RandomFlip'} < set(steps), name
        assert 'PanopticCopyPaste' not in steps, name
        assert ('ColorPolicy' in steps) == large, name

        test = config.model.test_cfg
        assert (test.class_threshold, test.pixel_threshold) == (0.7, 0.4), name
        assert (test.thing_area, test.stuff_area) == ((256, 4096) if fine else (100, 1600)), name
        criterion = config.model.panoptic_head.criterion
        assert criterion.loss_insdis.num_things_classes == 80, name
        assert criterion.loss_sem == dict(type='SemanticLoss'), name  # of all pixels
        assert config.model.backbone.drop_path_rate == 0.2, name
