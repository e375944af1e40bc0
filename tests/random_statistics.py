"""Random parameters and statistics for norm layers. New ones are nearly the identity in eval mode."""
import torch
from torch import nn
from torch.nn.modules.batchnorm import _BatchNorm


@torch.no_grad()
def randomize_norms(module: nn.Module) -> nn.Module:
    """Randomize the parameters of all norms and the running statistics of batch norms, in place."""
    for norm in module.modules():
        if isinstance(norm, (_BatchNorm, nn.GroupNorm, nn.LayerNorm)):
            norm.weight.uniform_(0.5, 1.5)
            norm.bias.normal_(std=0.3)
        if isinstance(norm, _BatchNorm):
            norm.running_mean.normal_(std=0.3)
            norm.running_var.uniform_(0.5, 1.5)
    return module
