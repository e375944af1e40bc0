"""The runner of a training or a test."""
import os

from mmengine.config import Config
from mmengine.registry import RUNNERS
from mmengine.runner import Runner

from remax_mm.compat import prepare_launch


def build_runner(config: Config, local_rank: int = 0) -> Runner:
    """Build the runner of a config, in each of the processes that the launcher started.

    Args:
        config: Its ``launcher`` says how the processes were started.
        local_rank: Number of this process on its machine, unless the environment variable ``LOCAL_RANK`` says
            so.
    """
    os.environ.setdefault('LOCAL_RANK', str(local_rank))
    prepare_launch(config)
    return RUNNERS.build(config) if 'runner_type' in config else Runner.from_cfg(config)
