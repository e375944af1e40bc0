# Views for `tools/test.py --tta` of Cityscapes: three scales, each with its mirror image.
tta_model = dict(type='PanopticTTAModel')
tta_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadSegmentIds'),
    dict(
        type='TestTimeAug',
        transforms=[
            # The size of the test pipeline comes first: other views are padded in proportion to it.
            [dict(type='Resize', scale=(2 * side, side), keep_ratio=True) for side in (1024, 768, 1280)],
            [dict(type='RandomFlip', prob=0.),
             dict(type='RandomFlip', prob=1.)],
            [dict(type='PackPanopticInputs')],
        ]),
]
