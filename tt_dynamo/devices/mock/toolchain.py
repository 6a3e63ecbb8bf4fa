"""What TTNN's mock cluster needs on disk: cluster descriptions, a runtime root and a stand-in kernel toolchain.

The kernels of a mocked device never run, but TTNN still compiles them and loads what the compiler made. So the
compiler of the runtime root prepared here answers every call with one tiny valid program. All of it lies in a folder of
ours, keyed by the TTNN version and by what we write, next to a kernel cache and a log folder of its own: the kernel
cache of real devices, where such stand-ins would be poison, is never touched, and neither is the TTNN package, which
the runtime root only links to.

Several processes may prepare the same folder at once: every file appears complete under its name (`os.replace`).
"""

import hashlib
import os
import struct
import tempfile
from importlib.metadata import version
from importlib.util import find_spec
from pathlib import Path

from tt_dynamo.devices.boards import BOARD_DESCRIPTIONS, Board

# TTNN calls this for every kernel that it builds. Builtins and `exec` keep that to one process; a native program in its
# place would make a first call of an operation, some 30 ms, a quarter shorter.
_COMPILER_PATH = "runtime/sfpi/compiler/bin/riscv-tt-elf-g++"
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


def mock_environment(board: Board) -> dict[str, str]:
    """Prepare the folder and return the environment in which TTNN opens `board` on its mock cluster.

    TTNN reads these variables when its first device is opened, and never again in that process.
    """
    root = _prepare_root()
    environment = {
        "TT_METAL_MOCK_CLUSTER_DESC_PATH": str(root / f"{board.name}.yaml"),
        "TT_METAL_RUNTIME_ROOT": str(root),
        "TT_METAL_CACHE": str(root / "kernels"),
        "TT_METAL_LOGS_PATH": str(root / "logs"),  # unset, a folder `generated` appears in the working directory
        "TT_METAL_SHM_TRACKING_DISABLED": "1",  # the machine's statistics of device memory are of real devices
    }
    # TTNN logs each refused call as critical before it raises. The exception says the same, and calls are refused
    # as a matter of course while a model is compiled.
    if not os.environ.keys() & {"TT_METAL_LOGGER_LEVEL", "TT_LOGGER_LEVEL"}:
        environment["TT_METAL_LOGGER_LEVEL"] = "OFF"
    return environment


def _prepare_root() -> Path:
    package = _ttnn_package()
    files = {
        "runtime/sfpi/compiler/bin/kernel.elf": (_kernel_elf(), 0o644),
        _COMPILER_PATH: (_COMPILER.encode(), 0o755),
        **{f"{b.name}.yaml": (b.cluster_descriptor.encode(), 0o644) for b in BOARD_DESCRIPTIONS.values()},
    }
    links = {name: package / name for name in ("tt_metal", "ttnn", "runtime/hw")}
    # The digest keeps an older or newer version of us, or TTNN in another environment, out of this one's folder.
    digest = hashlib.sha256(repr((sorted(files.items()), sorted(links.items()))).encode()).hexdigest()[:12]
    root = cache_root() / f"mock-ttnn-{version('ttnn')}-{digest}"
    for folder in ("runtime/sfpi/compiler/bin", "runtime/sfpi/include", "kernels", "logs"):
        (root / folder).mkdir(parents=True, exist_ok=True)
    for name, (content, mode) in files.items():
        if not (root / name).exists():
            _write(root / name, content, mode)
    for name, target in links.items():
        if not (root / name).is_symlink():
            _link(root / name, target)
    if not os.access(root / _COMPILER_PATH, os.X_OK):
        raise PermissionError("programs there cannot be executed")
    return root


def _ttnn_package() -> Path:
    spec = find_spec("ttnn")  # finds the package without importing it
    assert spec is not None and spec.origin is not None, "checked by the caller"
    return Path(spec.origin).parent


def _write(path: Path, content: bytes, mode: int) -> None:
    handle, temporary = tempfile.mkstemp(dir=path.parent, prefix=".new-")
    with os.fdopen(handle, "wb") as file:
        file.write(content)
    os.chmod(temporary, mode)
    os.replace(temporary, path)


def _link(path: Path, target: Path) -> None:
    temporary = Path(tempfile.mkdtemp(dir=path.parent, prefix=".new-"))
    (temporary / path.name).symlink_to(target)
    os.replace(temporary / path.name, path)
    temporary.rmdir()


def _kernel_elf() -> bytes:
    """A do-nothing RV32 executable that TTNN's kernel loader accepts.

    The loader wants two PT_LOAD segments, text first with the entry point at its start, and at least one relocation
    section with symbols (it moves kernels to where they will run).
    """
    text_address, data_address = 0x8000, 0xFFB00800
    # lui a0, %hi(value); lw a0, %lo(value)(a0); ret
    text = struct.pack("<3I", 0xFFB01537, 0x80052503, 0x00008067)
    data = struct.pack("<2I", 1, data_address)
    strings = b"\0value\0_start\0"

    def symbol(name: bytes, value: int, info: int, section: int) -> bytes:
        return struct.pack("<IIIBBH", strings.index(name), value, 4, info, 0, section)

    # Section numbers: 1 .text, 2 .rela.text, 3 .data, 4 .rela.data, 5 .symtab, 6 .strtab, 7 .shstrtab
    symbols = bytes(16) + symbol(b"value", data_address, 0x11, 3) + symbol(b"_start", text_address, 0x12, 1)
    r_32, r_hi20, r_lo12_i, value_symbol = 1, 26, 27, 1 << 8
    text_relocations = struct.pack(
        "<IIiIIi", text_address, value_symbol | r_hi20, 0, text_address + 4, value_symbol | r_lo12_i, 0
    )
    data_relocations = struct.pack("<IIi", data_address + 4, value_symbol | r_32, 0)
    section_names = b"\0.text\0.rela.text\0.data\0.rela.data\0.symtab\0.strtab\0.shstrtab\0"

    blobs = [text, text_relocations, data, data_relocations, symbols, strings, section_names]
    header_size, segment_size, segments = 52, 32, 2
    body, offsets = b"", []
    for blob in blobs:
        body += bytes(-(header_size + segments * segment_size + len(body)) % 16)
        offsets.append(header_size + segments * segment_size + len(body))
        body += blob
    body += bytes(-(header_size + segments * segment_size + len(body)) % 4)

    progbits, symtab, strtab, rela = 1, 2, 3, 4
    write, alloc, execute, info_link = 1, 2, 4, 0x40
    #           name           type      flags            address       link info entry size
    sections = [
        (b".text", progbits, alloc | execute, text_address, 0, 0, 0),
        (b".rela.text", rela, info_link, 0, 5, 1, 12),
        (b".data", progbits, write | alloc, data_address, 0, 0, 0),
        (b".rela.data", rela, info_link, 0, 5, 3, 12),
        (b".symtab", symtab, 0, 0, 6, 1, 16),
        (b".strtab", strtab, 0, 0, 0, 0, 0),
        (b".shstrtab", strtab, 0, 0, 0, 0, 0),
    ]
    table = bytes(40)
    for (name, kind, flags, address, link, info, entry), offset, blob in zip(sections, offsets, blobs, strict=True):
        at = section_names.index(name + b"\0")
        table += struct.pack("<10I", at, kind, flags, address, offset, len(blob), link, info, 4, entry)

    def load(offset: int, address: int, physical: int, size: int, flags: int) -> bytes:
        return struct.pack("<8I", 1, offset, address, physical, size, size, flags, 4)

    identity = b"\x7fELF" + bytes([1, 1, 1, 0]) + bytes(8)
    executable, riscv = 2, 243
    header = identity + struct.pack(
        "<HHIIIIIHHHHHH",
        executable, riscv, 1, text_address, header_size, header_size + segments * segment_size + len(body), 0,
        header_size, segment_size, segments, 40, len(sections) + 1, len(sections),
    )  # fmt: skip
    program = load(offsets[0], text_address, text_address, len(text), 5)
    program += load(offsets[2], data_address, text_address + len(text), len(data), 6)
    return header + program + body + table
