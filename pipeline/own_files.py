"""Python files of the user's own that a recipe names: loaded, or refused in one line."""

import importlib.util
import re
import sys
import traceback
from functools import cache
from hashlib import sha256
from importlib.machinery import SourceFileLoader
from pathlib import Path
from types import CodeType, ModuleType

from pipeline.config import UserError


def own_module(file: str, where: str) -> tuple[ModuleType, str]:
    """A file's module, and the file's sha256. where: how a message begins. Raises UserError: it is not there, or raises."""
    path = Path(file)
    if not path.is_file():
        raise UserError(f"{where}: no such file, looked in {Path.cwd()}")
    digest = sha256(path.read_bytes()).hexdigest()
    return _loaded(path.resolve(), digest, where), digest


class _Source(SourceFileLoader):
    """Of the file as it is: Python knows its own bytecode by the second and the size of the file, which a change may keep."""

    def get_code(self, fullname: str) -> CodeType:
        return self.source_to_code(self.get_data(self.path), self.path)


def told(error: BaseException) -> str:
    """An error of another's code, in one line."""
    return f"{type(error).__name__}: {(str(error).splitlines() or [''])[0]}"


@cache
def _loaded(path: Path, digest: str, where: str) -> ModuleType:
    name = f"unmix_own_{re.sub(r'[^A-Za-z0-9]', '_', path.stem)}_{digest}"
    if path.suffix != ".py":
        raise UserError(f"{where}: expected a Python file, *.py")
    spec = importlib.util.spec_from_file_location(name, path, loader=_Source(name, str(path)))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name]
        lines = [f.lineno for f in traceback.extract_tb(error.__traceback__) if f.filename == str(path)]
        line = getattr(error, "lineno", None) if isinstance(error, SyntaxError) else (lines or [None])[-1]
        raise UserError(f"{where}{f', line {line}' if line else ''}: {told(error)}") from None
    return module
