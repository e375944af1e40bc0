"""No variant of a dataset crashes, hangs or passes unnoticed in checker, training and evaluation."""
import os
import random
import re
import time
from collections import Counter

import pytest

from tests.reliability import fuzz_annotations
from tests.reliability.fuzz_annotations import OUTCOMES, all_variants, format_counts, run_variant
from tests.reliability.fuzz_dataset import EVALUATION, STEPS, TRAINING, Variant

PATTERN = os.environ.get('RELIABILITY_VARIANTS', '')
GOOD = ('refused clearly', 'accepted')
UNNOTICED = {
    'gt.json/text/repeated-key',  # parsers take the last one, as JSON allows
    'pred.json/text/repeated-key',
    'photo/damaged/zeros-80',  # decodes to other pixels without a warning
}


def _run(variants):
    results = [result for variant in variants for result in run_variant(variant)]
    print(f'\n{len(variants)} variants\n{format_counts(results)}')
    for result in results:
        if PATTERN or result.outcome not in GOOD:
            print(f'{result.outcome}: {result.variant} in {result.step}: {result.message[:200]}')
    return results


def test_variants__names_differ_and_the_first_is_correct():
    variants = all_variants()
    assert len({variant.name for variant in variants}) == len(variants) > 706
    assert [result.outcome for result in run_variant(variants[0])] == ['accepted'] * 3


def test_variants__sample():
    variants = [variant for variant in all_variants() if variant.name not in UNNOTICED]
    results = _run(random.Random(0).sample(variants, 40))
    assert [result for result in results if result.outcome not in GOOD] == []


@pytest.mark.slow
def test_variants__all():
    """Or those whose name has the regular expression RELIABILITY_VARIANTS, each with what was said."""
    results = _run([variant for variant in all_variants() if re.search(PATTERN, variant.name)])
    counts = Counter(result.outcome for result in results)
    wrong = sum(counts[outcome] for outcome in OUTCOMES[:4])
    assert counts['refused unclearly'] <= 0.01 * wrong
    assert counts['silently accepted'] <= 0.01 * wrong
    assert counts['over time'] == 0 and counts['false alarm'] == 0
    assert {result.variant for result in results if result.outcome not in GOOD} <= UNNOTICED


def _fail(error):

    def run(folder):
        raise error(f'Expected less in {folder}/gt.json')

    return run


@pytest.mark.parametrize('run, refused_by, outcome', [
    (lambda folder: None, STEPS, 'silently accepted'),
    (lambda folder: None, (EVALUATION, ), 'accepted'),
    (lambda folder: 'an error', STEPS, 'refused clearly'),
    (_fail(ValueError), STEPS, 'refused clearly'),
    (_fail(ValueError), (), 'false alarm'),
    (_fail(TypeError), STEPS, 'refused unclearly'),
    (lambda folder: int('x'), STEPS, 'refused unclearly'),
    (lambda folder: time.sleep(9), STEPS, 'over time'),
    (lambda folder: bytes(2**35), STEPS, 'refused unclearly'),
])
def test_run_variant__outcomes(monkeypatch, run, refused_by, outcome):
    monkeypatch.setitem(fuzz_annotations.RUN_STEP, TRAINING, run)
    result, = run_variant(Variant('x', lambda folder: None, refused_by), [TRAINING], seconds=1)
    assert result.outcome == outcome
