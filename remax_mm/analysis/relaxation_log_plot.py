"""Plot of what :class:`RelaxationLogHook` logged in the runs of a comparison."""
from pathlib import Path
from typing import Dict, Optional, Sequence

from matplotlib.axes import Axes
from matplotlib.figure import Figure

from .metric_logs import read_log
from .studies import STUDIES
from .study_plan import Plan
from .study_runs import Outcome

ROWS = (
    ('gate: inside (–), outside (- -)', ('gate_inside', 'gate_outside')),
    ('FP : FN loss (–), without Eq. 2 (- -)', ('fp_fn', 'fp_fn_unrelaxed')),
)
"""Label of the axis, and the scalars that are drawn solid and dashed, by row of the plot."""

Curves = Dict[str, Dict[int, float]]


def draw_relaxation_log(plan: Plan, outcomes: Sequence[Outcome], condition: str,
                        path: Path) -> Optional[Path]:
    """Draw the gate and the loss balance of each output against iterations, averaged over the seeds.

    Args:
        plan: The comparison.
        outcomes: Runs of the plan.
        condition: One of its conditions.
        path: Image to write.

    Returns:
        The path; None if no finished run has these scalars.
    """
    finished = [o.run for o in outcomes if o.test is not None and o.run.condition == condition]
    curves = {
        variant: _mean_curves([run.folder for run in finished if run.variant == variant])
        for variant in plan.variants
    }
    outputs = sorted({key.split('.')[0] for found in curves.values() for key in found})
    if not outputs:
        return None
    figure = Figure(figsize=(3.6 * len(outputs), 6.4), layout='constrained')
    axes = figure.subplots(len(ROWS), len(outputs), sharex=True, sharey='row', squeeze=False)
    for row, (label, scalars) in zip(axes, ROWS):
        for axis, output in zip(row, outputs):
            axis.set(title=f'output {output}', xlabel='iteration')
            _draw_panel(axis, plan, curves, output, scalars)
        row[0].set_ylabel(label)
    axes[-1, 0].set_yscale('log')
    figure.legend(*axes[-1, 0].get_legend_handles_labels(), loc='outside lower center', ncols=3)
    figure.savefig(path, dpi=120)
    return path


def _draw_panel(axis: Axes, plan: Plan, curves: Dict[str, Curves], output: str,
                scalars: Sequence[str]) -> None:
    for number, variant in enumerate(plan.variants):
        for style, scalar in zip(('-', '--'), scalars):
            curve = curves[variant].get(f'{output}.{scalar}', {})
            label = STUDIES[plan.study].variants[variant].title if style == '-' else None
            axis.plot(list(curve), list(curve.values()), style, color=f'C{number}', label=label)
    axis.grid(alpha=0.3)
    # Only relaxed outputs have a gate.
    axis.set_visible(any(f'{output}.{scalar}' in found for found in curves.values() for scalar in scalars))


def _mean_curves(folders: Sequence[Path]) -> Curves:
    """Mean over the runs of each scalar of the hook, at the iterations that all of them have."""
    names = [scalar for _, scalars in ROWS for scalar in scalars]
    runs = [{
        key: dict(points)
        for key, points in read_log(folder, folder.name).curves.items() if key.split('.')[-1] in names
    } for folder in folders]
    means: Curves = {}
    for key in (runs[0] if runs else ()):
        found = [run[key] for run in runs if key in run]
        iterations = sorted(set.intersection(*map(set, found)))
        means[key] = {
            iteration: sum(curve[iteration] for curve in found) / len(found)
            for iteration in iterations
        }
    return means
