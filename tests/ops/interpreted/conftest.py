"""These tests run in Triton's interpreter, which must be asked for before Triton is imported: ``test_triton.py`` of the
folder above starts them in a process of their own."""

from __future__ import annotations

import os

collect_ignore_glob = [] if os.environ.get("TRITON_INTERPRET") == "1" else ["test_*.py"]
