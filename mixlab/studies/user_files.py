"""The user's own Python files, imported for the parts that they register."""

from __future__ import annotations

import importlib.util
import sys
from collections.abc import Sequence
from pathlib import Path

from mixlab.errors import Quoted, UserError, expected

_imported: set[Path] = set()


def import_files(files: Sequence[str]) -> None:
    """Import each file once per process, under a module name made of its own.

    Raises:
        UserError: a file is missing, or fails while it is imported.
    """
    for file in files:
        path = Path(file).resolve()
        if path in _imported:
            continue
        if not path.is_file():
            raise expected("import", "a Python file", str(file))
        name = f"mixlab_user_{path.stem}"
        spec = importlib.util.spec_from_file_location(name, path)
        if spec is None or spec.loader is None:
            raise expected("import", "a Python file", str(file), "a name that ends in .py")
        module = importlib.util.module_from_spec(spec)
        sys.modules[name] = module  # so that pickle and dataclasses find its classes
        try:
            spec.loader.exec_module(module)
        except UserError:
            raise
        except Exception as error:
            del sys.modules[name]
            where = f"{type(error).__name__}: {error}"
            raise expected(f"import {path.name}", "a file that runs", Quoted(where)) from error
        _imported.add(path)
