"""``mixlab doctor``: what this installation can do, and why not the rest."""

from __future__ import annotations

import json
import platform
import re
import sys
import warnings
from importlib import metadata
from pathlib import Path
from typing import Any

from rich.console import Console
from rich.table import Table
from rich.text import Text

Facts = dict[str, Any]
BUILD = "python -m mixlab.ops.native.build"
OURS = ("docs", "dev")  # extras for work on mixlab itself: in the JSON only
#: Where data sets look without --data-root; ``medmnist`` keeps its files in a folder of its own.
FOLDERS = {"imagewoof": ".mixlab", "medmnist": ".medmnist"}


def doctor(words: list[str]) -> int:
    """Print what works here and why not the rest.

    Returns:
        1 where something that mixlab needs is broken or, with ``--check``, a backend computes something wrong.
    """
    from mixlab.cli.arguments import make_parser, parse

    parser = make_parser("doctor", "What this installation can do, and why not the rest.")
    parser.add_argument("--check", type=bool, default=False, help="compute with every usable backend and compare")
    parser.add_argument("--json", type=bool, default=False, help="print JSON")
    given = parse(parser, words)
    found = examine()
    if given.get("check") and found["torch"]["version"] is not None:
        from mixlab.cli.doctor_check import check_backends

        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            found["check"] = check_backends()
        found["broken"] += [
            f"{row['backend']} on {row['device']}: {row['says']}" for row in found["check"] if row["bad"]
        ]
    if given.get("json"):
        print(json.dumps(found, indent=2))
    else:
        show(found, Console())
    return 1 if found["broken"] else 0


def examine() -> Facts:
    """Everything that is told, as plain values; ``broken`` names what mixlab needs and does not have."""
    needed, extras = requirements()
    found: Facts = {
        "mixlab": {"version": metadata.version("mixlab"), "folder": str(Path(__file__).parents[1])},
        "python": {"version": platform.python_version(), "executable": sys.executable},
        "platform": platform.platform(),
        "torch": torch_facts(),
        "requirements": needed,
        "extras": extras,
        "folders": {name: str(Path.home() / folder) for name, folder in FOLDERS.items()},
        "broken": [f"{name}: {row['wrong']}" for name, row in needed.items() if row["wrong"]],
    }
    if found["torch"]["version"] is None:
        found["broken"] += [f"torch: {found['torch']['error']}"]
        return found
    from mixlab.ops.local_attention_choice import backend_status

    found |= {"cpu": cpu_facts(), "accelerators": accelerators(), "native": native_facts()}
    with warnings.catch_warnings():  # of drivers again: accelerators() tells
        warnings.simplefilter("ignore")
        return found | {"backends": backend_status()}


def torch_facts() -> Facts:
    """Its version, or why it cannot be imported."""
    try:
        import torch
    except Exception as error:  # a missing library of the system is an OSError, a missing package an ImportError
        return {"version": None, "error": f"cannot be imported: {type(error).__name__}: {error}"}
    return {"version": torch.__version__, "error": None}


def cpu_facts() -> Facts:
    """The processor, what torch computes with, and how many threads an operation takes in this process."""
    import torch

    from mixlab.studies.environment import cores, cpu_name

    capability = torch.backends.cpu.get_cpu_capability().lower()
    return {"name": cpu_name(), "cores": cores(), "threads": torch.get_num_threads(), "torch_uses": capability}


def accelerators() -> dict[str, Facts]:
    """For each kind its devices, or why there are none."""
    import torch

    with warnings.catch_warnings(record=True) as said:  # torch warns about drivers; that is the reason
        warnings.simplefilter("always")
        cuda = torch.cuda.is_available()
    reason = "; ".join(str(w.message).split("(Triggered")[0].strip() for w in said)
    if torch.version.cuda is None and torch.version.hip is None:
        reason = f"torch {torch.__version__} is built without CUDA"
    devices = [torch.cuda.get_device_properties(i) for i in range(torch.cuda.device_count())] if cuda else []
    names = [f"{d.name}, {d.total_memory / 2**30:.0f} GiB" for d in devices]
    mps, mps_reason = torch.backends.mps.is_available(), "needs macOS on Apple silicon"
    if not mps and torch.backends.mps.is_built():
        mps_reason = "torch finds no Metal device on this machine"
    return {
        "cuda": {"devices": names, "reason": None if cuda else reason or "torch finds no device on this machine"},
        "mps": {"devices": [platform.machine()] if mps else [], "reason": None if mps else mps_reason},
    }


def native_facts() -> Facts:
    """The native kernel: its instruction set and compiler, or why there is none and the command that builds it."""
    from mixlab.ops import local_attention_native as native
    from mixlab.ops.native import library

    reason = native.unavailable()
    facts: Facts = {"reason": reason, "build": BUILD, "library": None, "instruction_set": None, "compiler": None}
    files = sorted(library.LIBRARY.glob("libmixlab_native.*"))
    if files:
        facts |= {"library": str(files[0]), "compiler": compiler_of(files[0])}
    return facts if reason else facts | {"instruction_set": native.instruction_set()}


def compiler_of(file: Path) -> str | None:
    """What a library says of the compiler that made it (ELF files do, in their comment section)."""
    said = re.findall(rb"GCC: \([^\0]*|[A-Za-z ]*clang version [^\0]*", file.read_bytes())
    return ", ".join(dict.fromkeys(text.decode(errors="replace").strip() for text in said)) or None


def requirements() -> tuple[dict[str, Facts], dict[str, Facts]]:
    """Packages that mixlab needs, and its extras, as the installation declares them."""
    from packaging.requirements import Requirement

    needed: dict[str, Facts] = {}
    names = metadata.metadata("mixlab").get_all("Provides-Extra") or []
    extras: dict[str, Facts] = {n: {"install": f"pip install 'mixlab[{n}]'", "packages": {}} for n in names}
    for wanted in map(Requirement, metadata.requires("mixlab") or []):
        row = package(wanted)
        if wanted.marker is None or wanted.marker.evaluate({"extra": ""}):
            needed[wanted.name] = row
            continue
        for name in names:
            if wanted.marker.evaluate({"extra": name}) and wanted.name != "mixlab":
                extras[name]["packages"][wanted.name] = row
    for extra in extras.values():
        extra["complete"] = not any(row["wrong"] for row in extra["packages"].values())
    return needed, extras


def package(wanted: Any) -> Facts:
    """The installed version of a requirement, and what is wrong with it."""
    try:
        version = metadata.version(wanted.name)
    except metadata.PackageNotFoundError:
        return {"version": None, "wrong": "not installed"}
    old = not wanted.specifier.contains(version, prereleases=True)
    return {"version": version, "wrong": f"expected {wanted.specifier}, got {version}" if old else None}


def show(found: Facts, console: Console) -> None:
    """Print the facts as one table of sections, and below it what is broken."""
    table = Table(box=None, show_header=False, pad_edge=False)
    table.add_column(style="bold", no_wrap=True)
    table.add_column(no_wrap=True)
    table.add_column(overflow="fold")
    for title, rows in sections(found).items():
        for place, (name, text, good) in enumerate(rows):
            style = {True: "green", False: "yellow", None: ""}[good]
            table.add_row("" if place else title, name, Text(text, style=style))
    console.print(table)
    for problem in found["broken"]:
        console.print(Text(f"broken: {problem}", style="red"), soft_wrap=True)


def sections(found: Facts) -> dict[str, list[tuple[str, str, bool | None]]]:
    """Title -> rows of name, text, and whether that is good (None: a plain fact)."""
    mixlab, python, torch = found["mixlab"], found["python"], found["torch"]
    told: dict[str, list[tuple[str, str, bool | None]]] = {
        "installation": [
            ("mixlab", f"{mixlab['version']}, {mixlab['folder']}", None),
            ("python", f"{python['version']}, {python['executable']}", None),
            ("torch", torch["version"] or torch["error"], None if torch["version"] else False),
            ("system", found["platform"], None),
        ]
    }
    if torch["version"] is not None:
        told |= computing(found)
    extras = {name: extra for name, extra in found["extras"].items() if name not in OURS}
    told["extras"] = [(name, extra_text(extra), extra["complete"]) for name, extra in extras.items()]
    told["data folders"] = [
        (name, folder if Path(folder).is_dir() else f"{folder} (not there yet)", None)
        for name, folder in found["folders"].items()
    ]
    if "check" in found:
        told["check"] = [(f"{r['backend']}, {r['device']}", r["says"], not r["bad"]) for r in found["check"]]
    return told


def computing(found: Facts) -> dict[str, list[tuple[str, str, bool | None]]]:
    """The sections that need torch."""
    cpu, native = found["cpu"], found["native"]
    devices: list[tuple[str, str, bool | None]] = [
        ("cpu", f"{cpu['name']}, {cpu['cores']} cores, {cpu['threads']} threads, torch uses {cpu['torch_uses']}", None)
    ]
    for name, facts in found["accelerators"].items():
        devices.append((name, "; ".join(facts["devices"]) or f"none: {facts['reason']}", facts["reason"] is None))
    if native["reason"] is None:
        compiler = native["compiler"] or "a compiler that left no name"
        kernel = (f"{native['instruction_set']}, built with {compiler}", True)
    else:
        hint = "" if native["build"] in native["reason"] else f"; build it with: {native['build']}"
        kernel = (f"none: {native['reason']}{hint}", False)
    usable = [(n, "usable" if why is None else f"not here: {why}", why is None) for n, why in found["backends"].items()]
    return {"devices": devices, "native kernel": [("cpu", *kernel)], "local attention": list(usable)}


def extra_text(extra: Facts) -> str:
    """``timm 1.0``, or what is missing and the command that brings it."""
    there = [f"{name} {row['version']}" for name, row in extra["packages"].items() if not row["wrong"]]
    missing = [f"{name} ({row['wrong']})" for name, row in extra["packages"].items() if row["wrong"]]
    lines = [", ".join(there)] if there else []
    return "\n".join([*lines, f"without {', '.join(missing)}: {extra['install']}"] if missing else lines)
