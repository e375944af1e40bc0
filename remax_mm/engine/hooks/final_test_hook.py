"""Evaluation of the final weights of a training on the test split."""
from pathlib import Path

from mmdet.registry import HOOKS
from mmengine.fileio import dump
from mmengine.hooks import Hook
from mmengine.runner import Runner

RESULT_FILE = 'test_metrics.json'


@HOOKS.register_module()
class FinalTestHook(Hook):
    """Test the model once after its last iteration, without loading it again.

    The metrics of ``test_evaluator`` on ``test_dataloader`` are written to ``test_metrics.json`` in the work
    directory. A training that is stopped early is not tested; when it is resumed, its end is.

    Raises:
        ValueError: the config has no ``test_dataloader``.
    """

    # After the hook that writes the last checkpoint.
    priority = 'LOWEST'

    def before_train(self, runner: Runner) -> None:
        """Build the test loop, so that a missing file is reported before the training."""
        if runner.test_loop is None:
            raise ValueError('Expected `test_dataloader`, `test_cfg` and `test_evaluator` in the config for '
                             'FinalTestHook, but there are none')

    def after_train(self, runner: Runner) -> None:
        """Test, and write the metrics in the first process."""
        metrics = runner.test_loop.run()
        if runner.rank == 0:
            dump(metrics, Path(runner.work_dir) / RESULT_FILE, indent=2)
