"""Latency and memory of inference with several engines, configs and sizes, measured in turns."""
import json
import os
import subprocess
import sys
import tempfile
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import IO, Iterator, List, NamedTuple, Sequence, cast

import numpy as np

from remax_mm.analysis.version_comparison import REPOSITORY
from .inference_worker import Request, Seconds

WORKER = Path(__file__).with_name('inference_worker.py')


class Case(NamedTuple):
    """One row of the benchmark.

    Attributes:
        request: what the worker measures.
        commit: older commit of the package, '' for this one.
        root: folder of the package.
    """
    request: Request
    commit: str = ''
    root: Path = REPOSITORY

    @property
    def name(self) -> str:
        """Name of the config."""
        return Path(self.request.config).stem


class Latency(NamedTuple):
    """Seconds of an image."""
    median: float
    p95: float

    @property
    def images_per_second(self) -> float:
        """Of the median."""
        return 1 / self.median


class Speed(NamedTuple):
    """Measurements of a case.

    Attributes:
        network: of the network alone.
        whole: of the network and the merging of its masks.
        peak_memory: in bytes, of weights and activations.
    """
    network: Latency
    whole: Latency
    peak_memory: int


class Worker(NamedTuple):
    """A process that measures one case: what it reads and writes, and the file that its messages go to."""
    requests: IO[str]
    answers: IO[str]
    messages: IO[str]

    def answer(self) -> str:
        """The next line of the process.

        Raises:
            RuntimeError: the process ended; with its messages.
        """
        line = self.answers.readline()
        if not line:
            self.messages.seek(0)
            raise RuntimeError(self.messages.read().strip())
        return line

    def measure(self) -> Seconds:
        """Measure one image."""
        self.requests.write('\n')
        self.requests.flush()
        return Seconds(**json.loads(self.answer()))


def measure_cases(cases: Sequence[Case], rounds: int = 20, clock: str = 'wall') -> List[Speed]:
    """Measure one image of each case in turn, ``rounds`` times.

    Args:
        cases: which run at the same time, each in a process of its own.
        rounds: number of images of each case.
        clock: ``'wall'``, or ``'cpu'`` for the CPU time of the process, which other processes change less.

    Raises:
        RuntimeError: a process failed.
    """
    with ExitStack() as stack:
        workers = [stack.enter_context(run_worker(case)) for case in cases]
        rows = [[worker.measure() for worker in workers] for _ in range(rounds)]
    return [summarize(seconds, clock) for seconds in zip(*rows)]


@contextmanager
def run_worker(case: Case) -> Iterator[Worker]:
    """A worker after its warm-up."""
    environment = dict(
        os.environ,
        PYTHONPATH=str(case.root),
        PYTHONDONTWRITEBYTECODE='1',
        OMP_NUM_THREADS=str(case.request.threads))
    command = [sys.executable, '-c', WORKER.read_text(), json.dumps(case.request._asdict())]
    with tempfile.TemporaryFile('w+') as messages:
        process = subprocess.Popen(
            command,
            cwd=case.root,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=messages,
            text=True)
        worker = Worker(cast(IO[str], process.stdin), cast(IO[str], process.stdout), messages)
        try:
            worker.answer()
            yield worker
        except (RuntimeError, BrokenPipeError) as error:
            commit = f' of {case.commit}' if case.commit else ''
            raise RuntimeError(
                f'Expected the engine {case.request.engine}{commit} to run {case.request.config}, '
                f'but got: {error}') from error
        finally:
            process.kill()
            process.communicate()


def summarize(seconds: Sequence[Seconds], clock: str = 'wall') -> Speed:
    """Median, 95th percentile and peak of the measurements of a case."""
    suffix = dict(wall='', cpu='_cpu')[clock]
    network = np.array([getattr(one, f'network{suffix}') for one in seconds])
    merging = np.array([getattr(one, f'merging{suffix}') for one in seconds])
    latencies = [
        Latency(float(np.median(values)), float(np.quantile(values, 0.95)))
        for values in (network, network + merging)
    ]
    return Speed(latencies[0], latencies[1], max(one.peak_memory for one in seconds))
