"""The Dockerfile installs what the Makefile installs, from files that exist."""
import re

from tests.conftest import REPOSITORY

DOCKERFILE = (REPOSITORY / 'Dockerfile').read_text()
MAKEFILE = (REPOSITORY / 'Makefile').read_text()


def test_dockerfile__versions_of_the_makefile():
    pins = set(re.findall(r'[\w-]+==[\d.]+', DOCKERFILE))
    host, = re.findall(r'^HOST_openmmlab_lite := (.*)$', MAKEFILE, re.MULTILINE)
    assert pins == set(re.findall(r'[\w-]+==[\d.]+', host)) and len(pins) == 4
    torch, = re.findall(r'^TORCH \?= torch==(.*)$', MAKEFILE, re.MULTILINE)
    assert re.findall(r'^ARG TORCH=(.*)$', DOCKERFILE, re.MULTILINE) == [torch, torch]


def test_dockerfile__stages_and_files():
    stages = re.findall(r'^FROM \S+ AS (\S+)$', DOCKERFILE, re.MULTILINE)
    assert stages == ['base', 'wheel', 'cpu', 'cuda'] and '\nFROM ${DEVICE}\n' in DOCKERFILE
    copied = re.findall(r'^COPY --chown=\S+ (\S+) \S+$', DOCKERFILE, re.MULTILINE)
    assert copied == ['configs', 'tools', 'demo'] and all((REPOSITORY / name).is_dir() for name in copied)


def test_dockerignore__keeps_what_the_wheel_needs():
    ignored = (REPOSITORY / '.dockerignore').read_text().split()
    needed = {
        'configs', 'demo', 'model-index.yml', 'pyproject.toml', 'README.md', 'remax_mm', 'setup.cfg', 'tools'
    }
    assert not needed & set(ignored) and {'.git', 'data', 'work_dirs'} <= set(ignored)
