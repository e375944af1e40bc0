"""Studies: named comparisons of trainings on the mini dataset, each of several variants of one model."""
from typing import Dict, NamedTuple, Optional, Tuple


class Variant(NamedTuple):
    """One of the compared models.

    Attributes:
        title: Name in tables and plots.
        config: Config below ``configs/mini``.
        options: Overrides of the config, as for ``--cfg-options`` of tools/train.py. ``{prior}`` stands for
            one over the number of slots.
        paper: PQ in percent of the paper for this variant, with ResNet-50 on COCO.
    """
    title: str
    config: str
    options: Tuple[str, ...] = ()
    paper: Optional[float] = None


class Condition(NamedTuple):
    """Settings under which all variants of a study are compared, instead of those of the study.

    Attributes:
        title: Name in tables and plots.
        options: Overrides of all configs.
        iterations, lr: Of all runs; None for those of the study.
    """
    title: str = ''
    options: Tuple[str, ...] = ()
    iterations: Optional[int] = None
    lr: Optional[float] = None


class Study(NamedTuple):
    """A comparison.

    Attributes:
        question: What the study answers.
        variants: By name.
        baseline: Variant that the others are compared with.
        iterations, lr: Of all runs.
        num_slots: Slots of all models; None keeps those of the configs.
        slots_key: Where configs have the number of slots.
        conditions: By name. A study with a single condition gives it no name.
    """
    question: str
    variants: Dict[str, Variant]
    baseline: str
    iterations: int = 600
    lr: float = 4e-3
    num_slots: Optional[int] = 128
    slots_key: str = 'model.panoptic_head.transformer_decoder.num_slots'
    conditions: Dict[str, Condition] = {'': Condition()}


HEAD = 'model.panoptic_head'
DECODER = f'{HEAD}.transformer_decoder'
CRITERION = f'{HEAD}.criterion'
PRIOR = f'{DECODER}.mask_prior={{prior}}'


def _remax(title: str, *options: str, paper: Optional[float] = None) -> Variant:
    return Variant(title, 'remax_mnv3-s_1xb8-1k_mini-129.py', (PRIOR, *options), paper)


SOFTMAX = Variant('softmax', 'kmax_mnv3-s_1xb8-1k_mini-129.py')
SIGMOID = Variant('sigmoid + prior', 'kmax-sigmoid_mnv3-s_1xb8-1k_mini-129.py', (PRIOR, ))
REMASK = Variant('+ ReMask', 'kmax-sigmoid-remask_mnv3-s_1xb8-1k_mini-129.py', (PRIOR, ))
REMAX = _remax('+ ReMask + ReClass')

RELAXATIONS = {'softmax': SOFTMAX, 'sigmoid-prior': SIGMOID, 'remask': REMASK, 'remask-reclass': REMAX}
"""Variants of kMaX-DeepLab, each with one change more than the one before."""


def _mmdet_study(name: str, title: str) -> Study:
    plain, relaxed = (f'{model}_r18_1xb8-600_mini-129.py' for model in (name, f'remax-{name}'))
    variants = {
        name: Variant(title, plain),
        f'{name}-remask': Variant('+ ReMask', relaxed, (f'{HEAD}.reclass=None', )),
        f'{name}-remask-reclass': Variant('+ ReMask + ReClass', relaxed),
    }  # yapf: disable
    return Study(
        f'Do the relaxations help mmdet\'s {title}?',
        variants,
        baseline=name,
        lr=1e-3,
        num_slots=None,
        slots_key=f'{HEAD}.num_queries')


def _mmdet_prior_study(name: str, title: str) -> Study:
    config = f'{name}_r18_1xb8-600_mini-129.py'
    priors = {
        'prior-area': ('prior 1/7, about the share of a segment in its image', 1 / 7),
        'prior-queries': ('prior 1/24, one over the number of queries', 1 / 24),
    }
    variants = {
        key: Variant(text, config, (f'{HEAD}.type=ReMaX{title}Head', f'{HEAD}.mask_prior={prior}'))
        for key, (text, prior) in priors.items()
    }
    return Study(
        f'Does a prior of the masks help mmdet\'s {title}, trained from scratch?', {
            name: Variant(title, config),
            **variants
        },
        baseline=name,
        lr=1e-3,
        num_slots=None,
        slots_key=f'{HEAD}.num_queries')


def _relaxed_layers(layers_per_feature: int) -> Study:
    """No relaxation, and ReMask on a third, two thirds and all of the decoder layers (three features)."""
    layers = f'{DECODER}.num_layers={[layers_per_feature] * 3}'.replace(' ', '')
    paper = {2: 51.9, 4: 52.4, 6: 51.5} if layers_per_feature == 2 else {}
    counts = [layers_per_feature * thirds for thirds in (1, 2, 3)]
    variants = {
        '0': SIGMOID._replace(title='0 ReMasks', options=(PRIOR, layers), paper=50.4 if paper else None)
    }
    variants.update({
        str(count):
        _remax(f'{count} ReMasks', layers, f'{HEAD}.num_relaxed={count}', paper=paper.get(count))
        for count in counts
    })
    question = f'How many of {3 * layers_per_feature} decoder layers should ReMask relax?'
    return Study(question + (' (Table 3)' if paper else ''), variants, baseline='0')


def _scale_decoders(factor: float) -> Tuple[str, ...]:
    """All widths of the pixel decoder and of the transformer decoder of the mini configs, scaled."""
    widths = dict(channels=128, ffn_channels=512, embedding_channels=64)
    pixel = ','.join(str(int(width * factor)) for width in (64, 32, 16, 16))
    return (f'{HEAD}.pixel_decoder.channels=[{pixel}]', *(f'{DECODER}.{name}={int(width * factor)}'
                                                          for name, width in widths.items()))


_GROUND_TRUTH = (f'{HEAD}.remask._delete_=True', f'{HEAD}.remask.type=GroundTruthReMask',
                 f'{CRITERION}.loss_stage_sem=None')

STUDIES = {
    'kmax': Study(
        'Do the relaxations help kMaX-DeepLab?',
        {
            'softmax': SOFTMAX,
            'sigmoid': SIGMOID._replace(title='sigmoid', options=(f'{DECODER}.mask_prior=None', )),
            'sigmoid-prior': SIGMOID,
            'remask': REMASK,
            'remask-reclass': REMAX,
        },
        baseline='sigmoid-prior'),
    'mask2former': _mmdet_study('mask2former', 'Mask2Former'),
    'maskformer': _mmdet_study('maskformer', 'MaskFormer'),
    'mask2former-prior': _mmdet_prior_study('mask2former', 'Mask2Former'),
    'maskformer-prior': _mmdet_prior_study('maskformer', 'MaskFormer'),

    # ======================= Where the relaxations might help =======================
    'learning-rates': Study(
        'Do the relaxations allow a larger learning rate, without gradient clipping?',
        RELAXATIONS,
        baseline='sigmoid-prior',
        conditions={f'lr{lr:g}': Condition(f'learning rate {lr:g}', lr=lr)
                    for lr in (1e-3, 2e-3, 4e-3, 8e-3, 1.6e-2)}),
    'schedules': Study(
        'Do the relaxations help in longer schedules?',
        RELAXATIONS,
        baseline='sigmoid-prior',
        conditions={str(iterations): Condition(f'{iterations} iterations', iterations=iterations)
                    for iterations in (600, 2000, 6000)}),
    'widths': Study(
        'Do the relaxations help decoders of small or large capacity?',
        RELAXATIONS,
        baseline='sigmoid-prior',
        conditions={
            'half': Condition('half of all decoder widths', _scale_decoders(0.5)),
            'full': Condition('decoder widths of configs/mini'),
            'double': Condition('twice all decoder widths', _scale_decoders(2)),
        }),
    'relaxed-layers': _relaxed_layers(1),
    'crowded': Study(
        'Do the relaxations help with many classes and many segments?', {
            name: variant._replace(config=variant.config.replace('1k_mini-129', '2k_crowded-257'))
            for name, variant in RELAXATIONS.items()
        },
        baseline='sigmoid-prior',
        iterations=2000),
    'priors': Study(
        'Which prior of the masks suits ReMask, which multiplies their logits by about 1.5 at the start?',
        {
            'sigmoid-prior': SIGMOID,
            'no-prior': _remax('ReMaX without prior', f'{DECODER}.mask_prior=None'),
            'own-masks': REMAX._replace(title='ReMaX, prior of the masks as predicted'),
            # The logit of 1 / 128 over 1.5.
            'relaxed-masks': _remax('ReMaX, prior of the relaxed masks', f'{DECODER}.mask_prior=0.0381'),
        },
        baseline='sigmoid-prior'),

    # ======================= What the paper leaves open =======================
    'interpretations': Study(
        'Do other readings of the paper change the result of ReMaX?',
        {
            'remax': REMAX._replace(title='default'),
            'softmax-gate': _remax('softmax in Eq. 1', f'{HEAD}.remask.activation=softmax'),
            'class-gradient': _remax('gradient to the class logits', f'{HEAD}.remask.detach_class=False'),
            'pixel-decoder': _remax('semantics of the pixel decoder', f'{HEAD}.remask.source=pixel_decoder'),
            'embedding': _remax('semantics of the embedding', f'{HEAD}.remask.source=embedding'),
            'own-assignment': _remax('assignment by masks as predicted', f'{DECODER}.relax_assignment=False'),
            'mask-id-mean': _remax('mask-ID loss: mean over slots',
                                   f'{CRITERION}.loss_mask_id.slot_reduction=mean'),
            'mask-id-matched': _remax('mask-ID loss: matched slots',
                                      f'{CRITERION}.loss_mask_id.slot_reduction=matched'),
            'binary-semantics': _remax('stage semantics: BCE',
                                       f'{CRITERION}.loss_stage_sem.type=BinarySemanticLoss'),
            'stride-4-semantics': _remax('stage semantics at stride 4',
                                         f'{CRITERION}.loss_stage_sem.type=UpsampledSemanticLoss'),
            'zero-bias': _remax('semantic bias 0', f'{HEAD}.remask.semantic_head.calibrated_bias=False'),
        },
        baseline='remax'),

    # ======================= Tables of the paper =======================
    'table2': Study(
        'Softmax, sigmoid and ReMaX (Table 2)',
        {
            'softmax': SOFTMAX._replace(paper=48.8),
            'softmax-remax': _remax(
                'softmax, ReMaX',
                f'{HEAD}.remask.activation=softmax',
                f'{CRITERION}.loss_mask_id.type=SoftmaxMaskIDLoss',
                f'{CRITERION}.reclass.activation=softmax',
                paper=49.5),
            'sigmoid-prior': SIGMOID._replace(paper=50.4),
            'sigmoid-clip': SIGMOID._replace(
                title='sigmoid + prior, clipping',
                options=(PRIOR, 'optim_wrapper.clip_grad.max_norm=0.01'),
                paper=51.2),
            'remax': _remax('sigmoid + prior, ReMaX', paper=52.4),
        },
        baseline='sigmoid-prior'),
    'table3': _relaxed_layers(2),
    'table4': Study(
        'How much should ReClass smooth the targets? (Table 4)',
        {
            f'eta{eta:g}': _remax(f'η = {eta:g}', f'{CRITERION}.reclass.smoothing={eta:g}', paper=paper)
            for eta, paper in ((0, 51.7), (0.01, 51.7), (0.05, 51.9), (0.1, 52.4), (0.2, 51.5))
        },
        baseline='eta0'),
    'table5': Study(
        'Does Eq. 2 need the identity, and the network ReMask at inference? (Table 5)',
        {
            'remax': _remax('identity, not at test', paper=52.4),
            'at-test': _remax('identity, at test', f'{HEAD}.remask.type=ReMaskAtTest', paper=52.4),
            'no-identity-at-test': _remax(
                'no identity, at test',
                f'{HEAD}.remask.type=ReMaskAtTest',
                f'{HEAD}.remask.identity=False',
                paper=52.1),
            'no-identity': _remax('no identity, not at test', f'{HEAD}.remask.identity=False', paper=51.9),
        },
        baseline='remax'),
    'table7': Study(
        'Which semantics should relax the masks, and with which gradient? (Table 7)',
        {
            'remax': _remax('predicted semantics, stop-gradient', paper=52.4),
            'ground-truth': _remax(
                'true semantics', *_GROUND_TRUTH, paper=45.1),
            'ground-truth-filter': _remax(
                'true semantics, no identity', *_GROUND_TRUTH, f'{HEAD}.remask.identity=False', paper=45.1),
            'no-stop-gradient': _remax('no stop-gradient', f'{HEAD}.remask.stop_gradient=False', paper=36.6),
        },
        baseline='remax'),
}  # yapf: disable


def describe_studies() -> str:
    """Name, question, variants and conditions of each study; the baseline has a star."""
    lines = []
    for name, study in STUDIES.items():
        variants = (f'{variant}*' if variant == study.baseline else variant for variant in study.variants)
        lines += [f'{name}: {study.question}', f'    variants: {", ".join(variants)}']
        if len(study.conditions) > 1:
            lines.append(f'    conditions: {", ".join(study.conditions)}')
    return '\n'.join(lines)
