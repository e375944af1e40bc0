# Views for `tools/test.py --tta` at a crop of 1281: three scales, each with its mirror image.
tta_model = dict(type='PanopticTTAModel')
tta_pipeline = [
    dict(type='LoadImageStrict'),
    dict(type='LoadSegmentIds'),
    dict(
        type='TestTimeAug',
        transforms=[
            # The size of the test pipeline comes first: other views are padded in proportion to it.
            [dict(type='Resize', scale=(side, side), keep_ratio=True) for side in (1281, 961, 1601)],
            [dict(type='RandomFlip', prob=0.),
             dict(type='RandomFlip', prob=1.)],
            [dict(type='PackPanopticInputs')],
        ]),
]
