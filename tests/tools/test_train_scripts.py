"""The shell scripts, with replacements for torchrun and srun that print their arguments."""
import os
import stat
import subprocess
from pathlib import Path

import pytest

TOOLS = Path(__file__).resolve().parents[2] / 'tools'


@pytest.fixture
def run(tmp_path):
    for name in ('torchrun', 'srun'):
        stub = tmp_path / name
        stub.write_text('#!/usr/bin/env bash\necho "$PYTHONPATH"\nprintf "%s\\n" "$@"\n')
        stub.chmod(stub.stat().st_mode | stat.S_IXUSR)

    def run(script, *arguments, **variables):
        env = dict(os.environ, PATH=f'{tmp_path}:{os.environ["PATH"]}', **variables)
        for name in ('NNODES', 'NODE_RANK', 'PORT', 'MASTER_ADDR', 'GPUS', 'GPUS_PER_NODE', 'SRUN_ARGS'):
            if name not in variables:
                env.pop(name, None)
        done = subprocess.run([str(TOOLS / script), *arguments],
                              env=env,
                              cwd=tmp_path,
                              capture_output=True,
                              text=True)
        return done.returncode, done.stdout.splitlines(), done.stderr

    return run


def _expected_torchrun(gpus, nnodes=1, rank=0, addr='127.0.0.1', port=29500):
    return [
        f'--nnodes={nnodes}', f'--node_rank={rank}', f'--master_addr={addr}', f'--master_port={port}',
        f'--nproc_per_node={gpus}'
    ]


def test_dist_train__defaults(run):
    code, (path, *given), _ = run('dist_train.sh', 'my config.py', '4', '--amp', '--cfg-options', 'a=[1, 2]')
    assert code == 0 and Path(path.split(':')[0]).resolve() == TOOLS.parent
    assert given == [
        *_expected_torchrun(4),
        str(TOOLS / 'train.py'), 'my config.py', '--launcher', 'pytorch', '--amp', '--cfg-options', 'a=[1, 2]'
    ]


def test_dist_test__environment(run):
    code, (_, *given), _ = run(
        'dist_test.sh',
        'config.py',
        'a.pth',
        '2',
        '--show-dir',
        'x',
        NNODES='3',
        NODE_RANK='1',
        PORT='1234',
        MASTER_ADDR='host')
    assert code == 0
    assert given == [
        *_expected_torchrun(2, 3, 1, 'host', 1234),
        str(TOOLS / 'test.py'), 'config.py', 'a.pth', '--launcher', 'pytorch', '--show-dir', 'x'
    ]


def _expected_srun(gpus, per_node, *extra):
    return [
        '-p', 'part', '--job-name=job', f'--gres=gpu:{per_node}', f'--ntasks={gpus}',
        f'--ntasks-per-node={per_node}', '--cpus-per-task=5', '--kill-on-bad-exit=1', *extra, 'python', '-u'
    ]


def test_slurm_train__with_and_without_work_dir(run):
    code, (_, *given), _ = run(
        'slurm_train.sh',
        'part',
        'job',
        'config.py',
        'work dir',
        '--amp',
        GPUS='16',
        SRUN_ARGS='--quotatype=auto -w node1')
    assert code == 0
    assert given == [
        *_expected_srun(16, 8, '--quotatype=auto', '-w', 'node1'),
        str(TOOLS / 'train.py'), 'config.py', '--work-dir=work dir', '--launcher=slurm', '--amp'
    ]
    code, (_, *given), _ = run('slurm_train.sh', 'part', 'job', 'config.py')
    assert code == 0
    assert given == [*_expected_srun(8, 8), str(TOOLS / 'train.py'), 'config.py', '--launcher=slurm']
    _, (_, *given), _ = run('slurm_train.sh', 'part', 'job', 'config.py', '--resume')
    assert given[-3:] == ['config.py', '--launcher=slurm', '--resume']


def test_slurm_test__few_gpus(run):
    code, (_, *given), _ = run(
        'slurm_test.sh', 'part', 'job', 'config.py', 'a.pth', '--out', 'x.json', GPUS='2')
    assert code == 0
    assert given == [
        *_expected_srun(2, 2),
        str(TOOLS / 'test.py'), 'config.py', 'a.pth', '--launcher=slurm', '--out', 'x.json'
    ]


@pytest.mark.parametrize('script', ['dist_train.sh', 'dist_test.sh', 'slurm_train.sh', 'slurm_test.sh'])
def test_scripts__usage(run, script):
    code, _, error = run(script, 'config.py')
    assert code == 2 and 'Usage' in error and script in error
