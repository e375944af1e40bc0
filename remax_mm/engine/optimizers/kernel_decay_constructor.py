"""Optimizer groups: weight decay for kernels only, and learning rates per part of the model."""
from typing import Dict, List, Mapping, Optional

from mmdet.registry import OPTIM_WRAPPER_CONSTRUCTORS
from mmengine.logging import print_log
from mmengine.optim import OptimWrapper
from mmengine.registry import OPTIM_WRAPPERS, OPTIMIZERS
from torch import Tensor, nn


def takes_decay(module: nn.Module, name: str, parameter: Tensor) -> bool:
    """Whether a parameter is the kernel of a convolution, of a linear layer or of an attention projection.

    Norms, biases, layer scale, relative position tables, cluster centers and embeddings have no weight decay.
    (deeplab2 selects the names that end in `kernel` or `weight`.)

    Args:
        module: Module that has the parameter.
        name: Name of the parameter in this module.
        parameter: The parameter.
    """
    return name.endswith('weight') and parameter.ndim >= 2 and not isinstance(
        module, (nn.Embedding, nn.LayerNorm))


def group_parameters(model: nn.Module, lr: float, weight_decay: float, lr_mult: Mapping[str,
                                                                                        float]) -> List[dict]:
    """Optimizer groups of the trainable parameters, at most two for each learning rate.

    With few groups, the optimizer updates many tensors in one call; mmengine makes one group per parameter.

    Args:
        model: Each of its parameters is used once, also if modules share it.
        lr: Base learning rate.
        weight_decay: Weight decay of the kernels.
        lr_mult: Factors on the learning rate by prefix of the parameter name, up to a dot; the longest
            matching prefix is used.

    Returns:
        Groups of ``params``, ``lr`` and ``weight_decay``, those with the base learning rate first.

    Raises:
        ValueError: a key of ``lr_mult`` matches no parameter.
    """
    parameters: Dict[tuple, List[Tensor]] = {}
    known, matched_keys = set(), set()
    for prefix, module in model.named_modules():
        for name, parameter in module.named_parameters(recurse=False):
            full_name = f'{prefix}.{name}' if prefix else name
            keys = [key for key in lr_mult if f'{full_name}.'.startswith(f'{key}.')]
            matched_keys.update(keys)
            if id(parameter) in known or not parameter.requires_grad:
                continue
            known.add(id(parameter))
            factor = lr_mult[max(keys, key=len)] if keys else 1.
            decay = weight_decay if takes_decay(module, name, parameter) else 0.
            parameters.setdefault((factor, decay), []).append(parameter)

    if set(lr_mult) - matched_keys:
        raise ValueError('Expected every key of `lr_mult` to be the prefix of a parameter name, but '
                         f'{sorted(set(lr_mult) - matched_keys)} match none')
    order = sorted(parameters, key=lambda group: (group[0] != 1., group))
    return [dict(params=parameters[key], lr=lr * key[0], weight_decay=key[1]) for key in order]


@OPTIM_WRAPPER_CONSTRUCTORS.register_module()
class KernelDecayOptimWrapperConstructor:
    """Build the optimizer of kMaX-DeepLab and ReMaX.

    mmengine's default constructor is not sufficient: if one of its ``custom_keys`` matches a parameter, its
    rules for norms and biases do not apply, so the norms of a backbone with its own learning rate would have
    weight decay.

    Args:
        optim_wrapper_cfg: Config of the optimizer wrapper, with ``optimizer=dict(type=..., lr=...,
            weight_decay=...)``.
        paramwise_cfg: ``dict(lr_mult={'backbone': 0.1})``, see :func:`group_parameters`; no other key.

    Raises:
        ValueError: ``paramwise_cfg`` has another key, or the optimizer no ``lr`` or ``weight_decay``.
    """

    def __init__(self, optim_wrapper_cfg: dict, paramwise_cfg: Optional[dict] = None) -> None:
        paramwise_cfg = dict(paramwise_cfg or {})
        self.lr_mult = dict(paramwise_cfg.pop('lr_mult', {}))
        if paramwise_cfg:
            raise ValueError(f'Expected only `lr_mult` in `paramwise_cfg`, but got {sorted(paramwise_cfg)}')
        self.wrapper_cfg = dict(optim_wrapper_cfg)
        self.optimizer_cfg = dict(self.wrapper_cfg.pop('optimizer'))
        missing = {'lr', 'weight_decay'} - set(self.optimizer_cfg)
        if missing:
            raise ValueError(
                f'Expected `lr` and `weight_decay` in `optimizer`, but {sorted(missing)} are missing')

    def __call__(self, model: nn.Module) -> OptimWrapper:
        """Build the optimizer for a model, and its wrapper."""
        model = getattr(model, 'module', model)
        groups = group_parameters(model, self.optimizer_cfg['lr'], self.optimizer_cfg['weight_decay'],
                                  self.lr_mult)
        for group in groups:
            print_log(
                f'{len(group["params"])} parameters with lr {group["lr"]:g} and weight decay '
                f'{group["weight_decay"]:g}', 'current')
        optimizer = OPTIMIZERS.build(dict(self.optimizer_cfg, params=groups))
        return OPTIM_WRAPPERS.build(
            dict(dict(type='OptimWrapper'), **self.wrapper_cfg), default_args=dict(optimizer=optimizer))
