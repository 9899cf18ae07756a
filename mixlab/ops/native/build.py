"""Compile the native kernel in place with the system's compiler: ``python -m mixlab.ops.native.build [--asan]``.

For development and the AddressSanitizer run; an installation builds it through CMake.
"""

from __future__ import annotations

import argparse
import os
import platform
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

HERE = Path(__file__).parent
FLAGS = ["-std=c++17", "-O3", "-fPIC", "-fvisibility=hidden", "-fno-math-errno", "-fno-trapping-math",
         "-ffp-contract=fast", "-Wall", "-Wno-psabi"]  # fmt: skip
X86 = {
    "avx2": ["-mavx2", "-mfma"],
    "avx512": ["-mavx512f", "-mavx512vl", "-mavx512dq", "-mavx512bw", "-mfma", "-mprefer-vector-width=512"],
}
SANITIZE = ["-O1", "-g", "-fsanitize=address", "-fno-omit-frame-pointer"]


def library_name() -> str:
    """``libmixlab_native.so`` or what this platform calls it."""
    return "libmixlab_native.dylib" if sys.platform == "darwin" else "libmixlab_native.so"


def threads(cxx: str) -> str:
    """The flag for OpenMP where the compiler has it, else for plain threads, as native/CMakeLists.txt chooses."""
    tried = [cxx, "-fopenmp", "-x", "c++", "-fsyntax-only", "-"]
    found = (
        sys.platform != "darwin"
        and not subprocess.run(tried, input=b"#include <omp.h>", capture_output=True, check=False).returncode
    )
    return "-fopenmp" if found else "-pthread"


def build(folder: Path = HERE, *, sanitize: bool = False, compiler: str | None = None) -> Path:
    """Compile every instruction set of this machine's architecture and link them; returns the library."""
    cxx = compiler or os.environ.get("CXX") or shutil.which("g++") or shutil.which("clang++") or "c++"
    x86 = platform.machine().lower() in ("x86_64", "amd64")
    sources: dict[str, list[str]] = {"dispatch": [], "kernel_portable": [], "passes": [], "passes_portable": []}
    if x86:
        sources |= {f"{part}_{name}": extra for part in ("kernel", "passes") for name, extra in X86.items()}
    flags = [*FLAGS, threads(cxx)] + (["-DMIXLAB_X86"] if x86 else []) + (SANITIZE if sanitize else [])
    target = folder / library_name()
    with tempfile.TemporaryDirectory() as temporary:
        objects = []
        for name, extra in sources.items():
            objects.append(str(Path(temporary) / f"{name}.o"))
            subprocess.run([cxx, *flags, *extra, "-c", str(HERE / f"{name}.cpp"), "-o", objects[-1]], check=True)
        linked = Path(temporary) / library_name()
        subprocess.run([cxx, *flags, "-shared", *objects, "-o", str(linked)], check=True)
        shutil.copy(linked, target.with_suffix(".new"))
        target.with_suffix(".new").replace(target)  # a process that has the old file loaded keeps it
    return target


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--asan", action="store_true", help="with AddressSanitizer (run Python with libasan preloaded)")
    parser.add_argument("--folder", type=Path, default=HERE, help="where the library goes")
    arguments = parser.parse_args()
    print(build(arguments.folder, sanitize=arguments.asan))


if __name__ == "__main__":
    main()
