"""What TTNN's mock cluster needs on disk: cluster descriptions, a runtime root and a stand-in kernel toolchain.

The kernels of a mocked device never run, but TTNN still compiles them and loads what the compiler made. So the
compiler of the runtime root prepared here answers every call with one tiny valid program. All of it lies in a folder of
ours, keyed by the TTNN version and by what we write, next to a kernel cache and a log folder of its own: the kernel
cache of real devices, where such stand-ins would be poison, is never touched, and neither is the TTNN package, which
the runtime root only links to.

Several processes may prepare the same folder at once: it appears complete under its name, by being renamed.
"""

import contextlib
import hashlib
import os
import struct
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tt_dynamo.devices.clusters import CLUSTERS, Cluster

# TTNN calls this for every kernel that it builds. Builtins and `exec` keep that to one process; a native program in its
# place would make a first call of an operation, some 30 ms, a quarter shorter.
_COMPILER_FOLDER = "runtime/sfpi/compiler/bin"
_COMPILER = """#!/bin/sh
[ "$1" = --version ] && { echo 'riscv-tt-elf-g++ (stand-in) 15.1.0'; exit 0; }
while [ $# -gt 0 ]; do case "$1" in -o) out=$2;; -MF) dep=$2;; esac; shift; done
[ -n "$dep" ] && echo "$out:" >"$dep"
exec cp "${0%/*}/kernel.elf" "$out"
"""


def cache_root() -> Path:
    """Folder that holds all we keep between processes: $TT_DYNAMO_CACHE, else the user's cache folder."""
    if own := os.environ.get("TT_DYNAMO_CACHE"):
        return Path(own).expanduser().absolute()
    base = os.environ.get("XDG_CACHE_HOME")
    return (Path(base) if base else Path.home() / ".cache").expanduser().absolute() / "tt_dynamo"


def mock_environment(cluster: Cluster) -> dict[str, str]:
    """Prepare the folder and return the environment in which TTNN opens `cluster`, mocked.

    TTNN reads these variables when its first device is opened, and never again in that process.
    """
    root = _prepare_root()
    environment = {
        "TT_METAL_MOCK_CLUSTER_DESC_PATH": str(root / f"{cluster.name}.yaml"),
        "TT_METAL_RUNTIME_ROOT": str(root),
        "TT_METAL_CACHE": str(root / "kernels"),
        "TT_METAL_LOGS_PATH": str(root / "logs"),  # unset, a folder `generated` appears in the working directory
        "TT_METAL_SHM_TRACKING_DISABLED": "1",  # the machine's statistics of device memory are of real devices
        "TT_METAL_TRACE_ALLOC_TRACKING": "1",  # what a replay of a trace would overwrite is an error
    }
    # TTNN logs each refused call as critical before it raises. The exception says the same, and calls are refused
    # as a matter of course while a model is compiled.
    if not os.environ.keys() & {"TT_METAL_LOGGER_LEVEL", "TT_LOGGER_LEVEL"}:
        environment["TT_METAL_LOGGER_LEVEL"] = "OFF"
    return environment


def _prepare_root() -> Path:
    spec = find_spec("ttnn")  # finds the package without importing it
    assert spec is not None and spec.origin is not None, "checked by the caller"
    files = {
        f"{_COMPILER_FOLDER}/kernel.elf": _kernel_elf(),
        f"{_COMPILER_FOLDER}/riscv-tt-elf-g++": _COMPILER.encode(),
        **{f"{cluster.name}.yaml": cluster.descriptor.encode() for cluster in CLUSTERS.values()},
    }
    links = {name: Path(spec.origin).parent / name for name in ("tt_metal", "ttnn", "runtime/hw")}
    # The digest keeps an older or newer version of us, or TTNN in another environment, out of this one's folder.
    digest = hashlib.sha256(repr((sorted(files.items()), sorted(links.items()))).encode()).hexdigest()[:12]
    root = cache_root() / f"mock-ttnn-{version('ttnn')}-{digest}"
    if not root.exists():
        root.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(dir=root.parent, prefix=".new-", ignore_cleanup_errors=True) as temporary:
            new = Path(temporary) / "root"
            for folder in (_COMPILER_FOLDER, "runtime/sfpi/include", "kernels", "logs"):
                (new / folder).mkdir(parents=True)
            for name, content in files.items():
                (new / name).write_bytes(content)
            for name, target in links.items():
                (new / name).symlink_to(target)
            (new / _COMPILER_FOLDER / "riscv-tt-elf-g++").chmod(0o755)
            with contextlib.suppress(OSError):  # another process was first
                new.rename(root)
    if not os.access(root / _COMPILER_FOLDER / "riscv-tt-elf-g++", os.X_OK):
        raise PermissionError("programs there cannot be executed")
    return root


def _kernel_elf() -> bytes:
    """A do-nothing RV32 executable that TTNN's kernel loader accepts.

    The loader wants two PT_LOAD segments, text first with the entry point at its start, a string table, and a section
    of relocations (it moves kernels to where they will run), of which there are none.
    """
    header_size, segment_size, section_size = 52, 32, 40
    text_address, data_address = 0x8000, 0xFFB00800
    text = struct.pack("<I", 0x00008067)  # ret
    data = bytes(4)
    text_offset = header_size + 2 * segment_size
    data_offset = text_offset + len(text)
    load, executable, riscv, progbits, strtab, rela = 1, 2, 243, 1, 3, 4
    read, write, execute, allocated, executed, info_link = 4, 2, 1, 2, 4, 0x40
    segments = [  # type, offset, address, physical address, size in the file and in memory, flags, alignment
        (load, text_offset, text_address, text_address, len(text), len(text), read | execute, 4),
        (load, data_offset, data_address, text_address + len(text), len(data), len(data), read | write, 4),
    ]
    sections = [  # name, type, flags, address, offset, size, link, info, alignment, entry size
        (0,) * 10,
        (0, progbits, allocated | executed, text_address, text_offset, len(text), 0, 0, 4, 0),
        (0, strtab, 0, 0, data_offset, len(data), 0, 0, 1, 0),
        (0, rela, info_link, 0, data_offset, 0, 2, 1, 4, 12),
    ]
    identity = b"\x7fELF\1\1\1"
    header = struct.pack(
        "<16s2H5I6H", identity, executable, riscv, 1, text_address, header_size, data_offset + len(data), 0,
        header_size, segment_size, len(segments), section_size, len(sections), 2,
    )  # fmt: skip
    program = b"".join(struct.pack("<8I", *segment) for segment in segments)
    return header + program + text + data + b"".join(struct.pack("<10I", *section) for section in sections)
