"""Check that the model and the datasets have the same classes."""
from itertools import zip_longest
from typing import Mapping, Tuple

from mmdet.registry import HOOKS
from mmengine.dataset import BaseDataset
from mmengine.hooks import Hook
from mmengine.model import is_model_wrapper
from mmengine.runner import Runner
from torch import nn

from remax_mm.models.heads import ASPPSemanticHead, SimpleSemanticHead, StageSemanticHead

CLASS_LISTS = ('classes', 'thing_classes', 'stuff_classes')


def check_class_counts(model: nn.Module, metainfo: Mapping, source: str) -> None:
    """Compare the numbers of classes of a model and of a dataset.

    Args:
        model: All of its modules with ``num_things_classes`` or ``num_stuff_classes`` are checked, including
            losses, and its semantic heads. These have one output per class, and may have one more for the
            background if there is no stuff.
        metainfo: Metainfo of the dataset, with ``thing_classes`` and ``stuff_classes``.
        source: Origin of the classes, for the error message.

    Raises:
        ValueError: the numbers differ.
    """
    things, stuff = len(metainfo['thing_classes']), len(metainfo['stuff_classes'])
    expected = dict(num_things_classes=things, num_stuff_classes=stuff)
    for name, module in model.named_modules():
        found = {key: getattr(module, key) for key in expected if hasattr(module, key)}
        if any(count != expected[key] for key, count in found.items()):
            raise ValueError(
                f'Expected a model for the {things} thing and {stuff} stuff classes of {source}, '
                f'but `{name}` has {" and ".join(f"{key}={count}" for key, count in found.items())}; set '
                f'num_things_classes={things} and num_stuff_classes={stuff} wherever the config has them')
        if isinstance(module, (ASPPSemanticHead, SimpleSemanticHead, StageSemanticHead)):
            outputs = module.classifier.conv.out_channels
            if outputs != things + stuff and not (stuff == 0 and outputs == things + 1):
                raise ValueError(f'Expected semantic heads for the {things + stuff} classes of {source}, but '
                                 f'`{name}` has {outputs} outputs; set its num_classes={things + stuff}')


@HOOKS.register_module()
class CheckClassesHook(Hook):
    """Raise an error before the first iteration if model and datasets have different classes.

    mmdet's ``NumClassCheckHook`` compares the total number of classes only, and does not compare the datasets
    with each other.

    Raises:
        ValueError: the numbers of things or stuff, the class names or their order differ, or the metainfo of
            a dataset has no lists of thing and stuff classes.
    """

    def before_train(self, runner: Runner) -> None:
        """Compare the model with the training set, and the training set with the validation set."""
        train, train_source = self._check(runner, runner.train_dataloader.dataset)
        if runner.val_loop is None:
            return
        val, val_source = self._check(runner, runner.val_loop.dataloader.dataset)
        for label, (train_name, val_name) in enumerate(zip_longest(train['classes'], val['classes'])):
            if train_name != val_name:
                raise ValueError(
                    f'Expected {val_source} to have the classes of {train_source} in the same order, but '
                    f'label {label} is {val_name!r} in {val_source} and {train_name!r} in {train_source}')

    def before_val(self, runner: Runner) -> None:
        """Compare the model with the validation set."""
        self._check(runner, runner.val_dataloader.dataset)

    def before_test(self, runner: Runner) -> None:
        """Compare the model with the test set."""
        self._check(runner, runner.test_dataloader.dataset)

    def _check(self, runner: Runner, dataset: BaseDataset) -> Tuple[Mapping, str]:
        """Compare the model with one dataset; return its metainfo, and its file or the name of its class."""
        metainfo, source = dataset.metainfo, getattr(dataset, 'ann_file', '') or type(dataset).__name__
        missing = [key for key in CLASS_LISTS if key not in metainfo]
        if missing:
            raise ValueError(f'Expected {", ".join(CLASS_LISTS)} in the metainfo of {source}, '
                             f'but it has no {", ".join(missing)}')
        model = runner.model.module if is_model_wrapper(runner.model) else runner.model
        check_class_counts(model, metainfo, source)
        return metainfo, source
