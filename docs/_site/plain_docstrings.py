"""Extension of griffe: docstrings as Markdown, and functions that have the name of their file."""
import re
from typing import Any, Iterator

import griffe

ROLE = re.compile(r':(?:class|func|meth|mod|data|attr):`~?\.?([^`]+)`')
MATH = re.compile(r'^\.\. math:: *(.+)$', re.MULTILINE)


class PlainDocstrings(griffe.Extension):
    """Writes a role of reStructuredText as code, and a formula as a block of LaTeX."""

    def on_object(self, *, obj: griffe.Object, **kwargs: Any) -> None:
        """Change the docstring of a module, class, function or attribute."""
        if obj.docstring is not None:
            text = ROLE.sub(r'`\1`', obj.docstring.value)
            obj.docstring.value = MATH.sub(r'```latex\n\1\n```', text)

    def on_package(self, *, pkg: griffe.Module, **kwargs: Any) -> None:
        """Let a name that a package exports mean the function, not the file of the same name."""
        for module in _packages(pkg):
            for name in map(str, module.exports or ()):
                file = module.members.get(name)
                if isinstance(file, griffe.Module) and name in file.members:
                    module.set_member(name, griffe.Alias(name, file.members[name], parent=module))


def _packages(module: griffe.Module) -> Iterator[griffe.Module]:
    """A package and all packages in it, the innermost first."""
    for member in list(module.members.values()):
        if isinstance(member, griffe.Module):
            yield from _packages(member)
    yield module
