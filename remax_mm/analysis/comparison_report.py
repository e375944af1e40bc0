"""Tables and plots of a comparison of variants."""
import math
from pathlib import Path
from typing import Dict, List, Optional, Sequence, Union

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from mmengine.fileio import dump

from .comparison import CONFIDENCE, PRECISION, PairedDifference, Spread, compare_pairs, measure_spread
from .relaxation_log_plot import draw_relaxation_log
from .studies import STUDIES
from .study_plan import Plan, find_recipe
from .study_runs import Outcome

QUALITIES = ('PQ', 'PQ_th', 'PQ_st')

Outcomes = Sequence[Outcome]


class _Results:
    """Outcomes by condition and variant, in the order of the plan."""

    def __init__(self, plan: Plan, outcomes: Outcomes) -> None:
        self.plan, self.study, self.outcomes = plan, STUDIES[plan.study], outcomes

    def runs(self, condition: str, variant: str) -> List[Outcome]:
        """Finished runs."""
        return [
            outcome for outcome in self.outcomes
            if outcome.test is not None and (outcome.run.condition, outcome.run.variant) == (condition,
                                                                                             variant)
        ]

    def values(self, condition: str, variant: str, quality: str) -> Dict[int, float]:
        """Quality on the test split by seed."""
        return {
            outcome.run.seed: outcome.test[quality]
            for outcome in self.runs(condition, variant) if outcome.test is not None
        }

    def title(self, condition: str) -> str:
        """Title of a condition."""
        return self.study.conditions[condition].title


def write_comparison(plan: Plan, outcomes: Outcomes, work_dir: Path) -> str:
    """Write comparison.md and comparison.json.

    Args:
        plan: The comparison.
        outcomes: All runs of the plan, in its order.
        work_dir: Folder of the files.

    Returns:
        The text of comparison.md.
    """
    results = _Results(plan, outcomes)
    work_dir.mkdir(parents=True, exist_ok=True)
    text = _format_comparison(results)
    (work_dir / 'comparison.md').write_text(text, encoding='utf-8')
    dump(_list_numbers(results), work_dir / 'comparison.json', indent=2)
    return text


def _format_comparison(results: _Results) -> str:
    plan, study = results.plan, results.study
    lines = [study.question, '']
    if len(plan.conditions) > 1:
        lines += ['PQ of each variant minus that of the baseline, by condition:', '']
        lines += [*_format_overview(results), '']
    for condition in plan.conditions:
        lines += [f'**{results.title(condition)}**', ''] if condition else []
        lines += [f'{find_recipe(plan, condition)}, seeds {", ".join(map(str, plan.seeds))}', '']
        lines += [*_format_table(results, condition), '']
    lines += [
        f'Mean ± sample standard deviation over the seeds on the test split. Difference: PQ minus that of '
        f'{study.variants[plan.baseline].title!r} with the same seed, mean and {CONFIDENCE:.0%} confidence '
        f'interval (Student\'s t); pairs: number of seeds, and how many would give ± {PRECISION}.', ''
    ]
    failed = [f'- {outcome.run.name}: {outcome.error}' for outcome in results.outcomes if outcome.error]
    lines += ['Failed runs:', '', *failed, ''] if failed else []
    unfinished = [
        f'- {outcome.run.name}: {max(outcome.curve or [0])} iterations validated'
        for outcome in results.outcomes if outcome.test is None and not outcome.error
    ]
    lines += ['Unfinished runs:', '', *unfinished, ''] if unfinished else []
    return '\n'.join(lines)


def _format_overview(results: _Results) -> List[str]:
    plan, titles = results.plan, results.study.variants
    others = [variant for variant in plan.variants if variant != plan.baseline]
    rows = [('condition', *(titles[variant].title for variant in others)), ('---', ) * (1 + len(others))]
    for condition in plan.conditions:
        cells = [_format_difference(_compare(results, condition, variant, 'PQ')) or '–' for variant in others]
        rows.append((results.title(condition), *cells))
    return ['| ' + ' | '.join(row) + ' |' for row in rows]


def _format_table(results: _Results, condition: str) -> List[str]:
    head = ('variant', 'runs', *QUALITIES, 'difference', 'pairs (needed)')
    has_paper = any(variant.paper for variant in results.study.variants.values())
    head += ('paper (difference)', ) if has_paper else ()
    rows = [head, ('---', ) * len(head)]
    for variant in results.plan.variants:
        values = [results.values(condition, variant, quality) for quality in QUALITIES]
        cells = [_format_spread(measure_spread([*value.values()])) if value else '–' for value in values]
        difference = _compare(results, condition, variant, 'PQ')
        pairs = ''
        if difference is not None:
            pairs = f'{difference.pairs} ({difference.pairs_needed or "–"})'
        rows.append((results.study.variants[variant].title, str(len(values[0])), *cells,
                     _format_difference(difference), pairs))
        rows[-1] += (_format_paper(results, variant), ) if has_paper else ()
    return ['| ' + ' | '.join(row) + ' |' for row in rows]


def _compare(results: _Results, condition: str, variant: str, quality: str) -> Optional[PairedDifference]:
    """None for the baseline itself, and without a pair of runs."""
    values = results.values(condition, variant, quality)
    baseline = results.values(condition, results.plan.baseline, quality)
    if variant == results.plan.baseline or not set(values) & set(baseline):
        return None
    return compare_pairs(values, baseline)


def _format_spread(spread: Spread) -> str:
    return f'{spread.mean:.2f}' + ('' if spread.runs == 1 else f' ± {spread.deviation:.2f}')


def _format_difference(difference: Optional[PairedDifference]) -> str:
    if difference is None:
        return ''
    if difference.pairs == 1:
        return f'{difference.mean:+.2f}'
    return f'{difference.mean:+.2f} [{difference.low:+.2f}, {difference.high:+.2f}]'


def _format_paper(results: _Results, variant: str) -> str:
    value, baseline = (results.study.variants[name].paper for name in (variant, results.plan.baseline))
    if value is None:
        return '–'
    return f'{value:.1f}' + (f' ({value - baseline:+.1f})'
                             if baseline and variant != results.plan.baseline else '')


def _list_numbers(results: _Results) -> dict:
    """All numbers; NaN, which is no JSON, becomes None."""
    plan = results.plan
    variants = [{
        'condition': condition,
        'variant': variant,
        'title': results.study.variants[variant].title,
        'paper': results.study.variants[variant].paper,
        **find_recipe(plan, condition)._asdict(),
        'runs': {
            outcome.run.seed: dict(test=outcome.test, curve=outcome.curve, seconds=outcome.seconds)
            for outcome in results.runs(condition, variant)
        },
        'spread': {
            quality: _as_json(measure_spread([*results.values(condition, variant, quality).values()]))
            for quality in QUALITIES if results.runs(condition, variant)
        },
        'difference': {
            quality: _as_json(difference)
            for quality in QUALITIES
            if (difference := _compare(results, condition, variant, quality)) is not None
        },
    } for condition in plan.conditions for variant in plan.variants]
    settings = {**plan._asdict(), 'seeds': list(plan.seeds)}
    failed = {outcome.run.name: outcome.error for outcome in results.outcomes if outcome.error}
    return dict(settings=settings, question=results.study.question, variants=variants, failed=failed)


def _as_json(numbers: Union[Spread, PairedDifference]) -> dict:
    return {
        key: None if isinstance(value, float) and math.isnan(value) else value
        for key, value in numbers._asdict().items()
    }


def draw_comparison(plan: Plan, outcomes: Outcomes, work_dir: Path) -> List[Path]:
    """Write comparison.png, a row for each condition: PQ of the validations by iteration, and final PQ.

    What ReMask does, if it was logged, is drawn in relaxation.png or relaxation-<condition>.png. Nothing is
    drawn without a finished run.

    Args:
        plan: The comparison.
        outcomes: All runs of the plan, in its order.
        work_dir: Folder of the files.

    Returns:
        The files.
    """
    results = _Results(plan, outcomes)
    if all(outcome.test is None for outcome in outcomes):
        return []
    count = len(plan.conditions)
    figure = Figure(figsize=(10, 3.8 * count), layout='constrained')
    for (curves, seeds), condition in zip(figure.subplots(count, 2, squeeze=False), plan.conditions):
        _draw_curves(curves, results, condition)
        _draw_seeds(seeds, results, condition)
    files = [work_dir / 'comparison.png']
    figure.savefig(files[0], dpi=120)
    if plan.log_relaxation:
        for condition in plan.conditions:
            name = '-'.join(filter(None, ('relaxation', condition))) + '.png'
            files += filter(None, [draw_relaxation_log(plan, outcomes, condition, work_dir / name)])
    return files


def _draw_curves(axis: Axes, results: _Results, condition: str) -> None:
    """Mean of the finished runs of each variant, and one standard deviation to both sides."""
    for number, variant in enumerate(results.plan.variants):
        curves = [outcome.curve for outcome in results.runs(condition, variant) if outcome.curve]
        spreads = {
            iteration: measure_spread([curve[iteration]['PQ'] for curve in curves])
            for iteration in sorted(set.intersection(*map(set, curves)) if curves else ())
        }
        iterations = list(spreads)
        means = [spread.mean for spread in spreads.values()]
        title = results.study.variants[variant].title
        axis.plot(iterations, means, f'C{number}', marker='.', label=f'{title} ({len(curves)} seeds)')
        if len(curves) > 1:
            low, high = zip(*((spread.mean - spread.deviation, spread.mean + spread.deviation)
                              for spread in spreads.values()))
            axis.fill_between(iterations, low, high, color=f'C{number}', alpha=0.15, linewidth=0)
    axis.set(title=results.title(condition), xlabel='iteration', ylabel='PQ, validation split')
    axis.legend(loc='lower right')
    axis.grid(alpha=0.3)


def _draw_seeds(axis: Axes, results: _Results, condition: str) -> None:
    """Final PQ of the runs, with a line through those of a seed, and the mean and standard deviation."""
    variants = results.plan.variants
    values = [results.values(condition, variant, 'PQ') for variant in variants]
    for seed in results.plan.seeds:
        found = [(place, value[seed]) for place, value in enumerate(values) if seed in value]
        axis.plot(*zip(*found) if found else ((), ()), color='0.8', linewidth=0.8, zorder=1)
    for place, value in enumerate(values):
        axis.scatter([place] * len(value), [*value.values()], color=f'C{place}', alpha=0.5, s=18)
        if len(value) > 1:
            spread = measure_spread([*value.values()])
            axis.errorbar(place + 0.15, spread.mean, spread.deviation, fmt='o', color=f'C{place}', capsize=4)
    axis.set_xticks(range(len(variants)), [results.study.variants[variant].title for variant in variants])
    axis.tick_params('x', rotation=15)
    axis.set(title=results.title(condition), ylabel='PQ, test split')
    axis.grid(alpha=0.3, axis='y')
