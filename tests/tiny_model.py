"""Configs of a kMaX-DeepLab, or ReMaX, with all its parts, small enough for a unit test."""
from typing import Any, Optional, Sequence

NUM_THINGS, NUM_STUFF = 3, 2
NUM_CLASSES = NUM_THINGS + NUM_STUFF
NUM_SLOTS = 6


def head_config(in_channels: Sequence[int],
                relaxed: bool = False,
                norm_cfg: Optional[dict] = None,
                **transformer_options: Any) -> dict:
    """Config of a ``KMaXHead``.

    Args:
        in_channels: of the backbone features, strides 4 to 32.
        relaxed: ReMaX, with ReMask in the first two of three decoder layers.
        norm_cfg: of every norm; kMaX-DeepLab's batch norm where None.
        transformer_options: further options of the transformer decoder; ``remask`` and ``num_relaxed`` go to
            the head.
    """
    # The other options are those of the transformer decoder.
    options = {
        name: transformer_options.pop(name)
        for name in ('remask', 'num_relaxed') if name in transformer_options
    }
    if norm_cfg is not None:
        options['norm_cfg'] = norm_cfg
    criterion = dict(
        type='PanopticCriterion',
        assigner=dict(type='PQSimilarityAssigner'),
        loss_cls=dict(type='PQClassLoss', loss_weight=3.0),
        loss_dice=dict(type='PQMaskLoss', loss_weight=3.0),
        loss_mask_id=dict(type='SigmoidMaskIDLoss' if relaxed else 'SoftmaxMaskIDLoss', loss_weight=0.3),
        loss_insdis=dict(type='InstanceDiscriminationLoss', num_samples=20, sampling_temperature=1.5),
        loss_sem=dict(type='SemanticLoss', num_samples=20, sampling_temperature=2.0))
    if relaxed:
        remask = dict(type='ReMask', semantic_head=dict(type='StageSemanticHead', aspp_channels=8))
        options = {'remask': remask, **options}
        criterion.update(
            loss_stage_sem=dict(type='SemanticLoss', loss_weight=0.5), reclass=dict(type='ReClass'))
    return dict(
        type='KMaXHead',
        num_things_classes=NUM_THINGS,
        num_stuff_classes=NUM_STUFF,
        in_channels=in_channels,
        pixel_decoder=dict(type='KMaXPixelDecoder', channels=(16, 8, 8, 8), num_blocks=(1, 1, 1, 1)),
        transformer_decoder=dict(
            type='KMaXTransformerDecoder',
            num_slots=NUM_SLOTS,
            num_layers=(1, 1, 1),
            channels=16,
            ffn_channels=24,
            embedding_channels=8,
            num_heads=4,
            **transformer_options),
        semantic_head=dict(type='ASPPSemanticHead', aspp_channels=8, low_level_channels=(4, 4)),
        criterion=criterion,
        **options)


def detector_config(relaxed: bool = True, **options: Any) -> dict:
    """Config of a ``MaskTransformer`` with a thin ResNet-18 and inputs of 65x65 pixels, all results on."""
    return dict(
        type='MaskTransformer',
        data_preprocessor=dict(type='PanopticDataPreprocessor', pad_size=65),
        backbone=dict(
            type='ResNet', depth=18, base_channels=4, stem_channels=4, norm_cfg=dict(type='BN', eps=1e-3)),
        panoptic_head=head_config((4, 8, 16, 32), relaxed, **options),
        panoptic_fusion_head=dict(type='KMaXFusionHead'),
        # Nothing has been learned: without low thresholds all of the map would be void.
        test_cfg=dict(
            instance_on=True,
            semantic_on=True,
            thing_threshold=0.0,
            stuff_threshold=0.0,
            pixel_threshold=1 / NUM_SLOTS,
            overlap_threshold=0.1))
