"""Take CUDA out of the torch that PyPI has for x86-64: `python without_cuda SITE_PACKAGES`.

PyPI's only torch for Linux on x86-64 is the one for CUDA. Without a GPU, 1.1 GB of it are never used, nor are the 4.7 GB
of NVIDIA's packages and triton that it asks for. PyTorch's own index has wheels for the CPU, if it can be reached; this
is for where it cannot. Where torch is for the CPU already (those wheels; PyPI's for ARM), only what is for building
against it goes.

CUDA's libraries are removed. What is linked with them is linked with one small library instead (`stub.py`), which offers
the same names: `torch.cuda.is_available()` says no, as it does on a machine without a GPU, and what would compute on one
ends the process with a word why. Nothing else in the libraries is changed.
"""  # noqa: INP001

import argparse
import re
import shutil
import struct
import sys
from pathlib import Path

from elf import NotElf, SharedObject, Symbol
from stub import PLACE, library

STUB = "libnogpu.so"
_REASON = "torch was installed without CUDA, and cannot do without"
# cudaErrorNoDevice, CUDNN_STATUS_NOT_INITIALIZED (of cuDNN 9), CUPTI_ERROR_NOT_INITIALIZED
_NOT_THERE = {"cuda": 100, "cudnn": 1001, "cupti": 15}
_PACKAGES = ("torch", "torchaudio", "torchvision", "torchvision.libs", "torchcodec")
# By the name up to its first dot: wheels add a digest to it.
_CUDA_LIBRARY = re.compile(
    r"lib(torch_cuda(_linalg)?|c10_cuda|caffe2_nvrtc|cuda|cudart|cudnn|cublas|cublasLt|cupti|cufft|cufile|curand|cusolver"
    r"|cusparse|cusparseLt|nccl|nvjpeg|nvrtc|nvToolsExt)\.(\w+\.)?so(\.\d+)*"
)
# Names that have no version of their library written beside them, and are not torch's own.
_UNVERSIONED = re.compile(r"cuFile\w+|cusparseLt\w+|nvjpeg\w+")
# What is for CUDA alone, or for building against torch.
_UNUSED = (
    "torch/bin/protoc*",
    "torch/include",
    "torch/share",
    "torch/test",
    "torch/lib/*.a",
    "torchaudio/lib/libctc_prefix_decoder.so",
    "torchaudio/lib/pybind11_prefixctc.so",
)


def main() -> None:
    """Do it, and say how much smaller it is. Done once, a second time changes nothing."""
    parser = argparse.ArgumentParser(
        prog="without_cuda", description=__doc__, formatter_class=argparse.RawTextHelpFormatter
    )
    parser.add_argument("site_packages", type=Path)
    site_packages = parser.parse_args().site_packages
    if not (site_packages / "torch/lib").is_dir():
        sys.exit(f"without_cuda: no torch in {site_packages}")
    removed_bytes = sum(_remove(path) for pattern in _UNUSED for path in site_packages.glob(pattern))
    removed_bytes += _without_cuda(site_packages)
    print(f"without_cuda: {removed_bytes / 1e6:.0f} MB less")  # noqa: T201 -- this is its output


def _without_cuda(site_packages: Path) -> int:
    """Remove CUDA's libraries and link the others with a stub; return how many bytes are gone."""
    libraries = {
        path: elf
        for package in _PACKAGES
        for path in sorted((site_packages / package).rglob("*.so*"))
        if (elf := _read(path)) is not None
    }
    cuda = {path for path in libraries if _CUDA_LIBRARY.fullmatch(path.name)}
    kept = {path: elf for path, elf in libraries.items() if path not in cuda}
    needing = {
        path: gone
        for path, elf in kept.items()
        if (gone := list(filter(_CUDA_LIBRARY.fullmatch, elf.needed())))
    }
    if not needing:
        return 0
    stub_path = site_packages / "torch/lib" / STUB
    if any(STUB in elf.needed() for elf in kept.values()):
        sys.exit(f"without_cuda: {stub_path} is left of a run that did not end; please install torch anew")
    offered_by_cuda = {name for path in cuda for name in libraries[path].offers()}
    offered = {name for elf in kept.values() for name in elf.offers()}
    lacked = {
        symbol
        for path in needing
        for symbol in kept[path].lacks()
        if symbol.name not in offered and _is_cudas(symbol, offered_by_cuda)
    }
    functions = {symbol.name for symbol in lacked if not symbol.is_data}
    stub = library(
        STUB,
        functions,
        {name: answer for name in functions if (answer := _answer(name)) is not None},
        (symbol.name for symbol in lacked if symbol.is_data),
        _REASON,
    )
    stub_path.write_bytes(stub)
    for path, gone in needing.items():
        kept[path].replace_needed(gone, STUB)
        kept[path].save()
    _say_so(site_packages / "torch/version.py")
    return sum(_remove(path) for path in cuda) - len(stub)


def _is_cudas(symbol: Symbol, offered_by_cuda: set[str]) -> bool:
    if symbol.library is not None:
        return _CUDA_LIBRARY.fullmatch(symbol.library) is not None
    return symbol.name in offered_by_cuda or _UNVERSIONED.fullmatch(symbol.name) is not None


def _answer(function: str) -> int | None:
    """Return what a function says where there is no GPU; None if it is not asked there."""
    # torch keeps a function there, when it is imported.
    if function == "_ZN4c10d15get_gil_checkerEv":
        return PLACE
    # What registers kernels when a library is loaded, and what counts.
    if function.startswith("__cuda") or function in (
        "_ZN3c104cuda12device_countEv",
        "cudaGetLastError",
        "cudnnGetVersion",
    ):
        return 0
    # Those that return a text instead of a status.
    if function in ("cudaGetErrorString", "cudaGetErrorName", "cuptiGetResultString", "cudnnGetErrorString"):
        return None
    return next((status for prefix, status in _NOT_THERE.items() if function.startswith(prefix)), None)


def _say_so(version: Path) -> None:
    """Make `torch.version.cuda` None, as it is where torch is built for the CPU."""
    text = version.read_text()
    changed = re.sub(r"^(cuda: \S+ = )'[\d.]+'$", r"\1None", text, flags=re.MULTILINE)
    version.unlink()  # it may be a hard link into a cache
    version.write_text(changed)


def _read(path: Path) -> SharedObject | None:
    try:
        return SharedObject(path)
    except (NotElf, ValueError, struct.error):
        return None


def _remove(path: Path) -> int:
    """Remove a file or a directory; return its bytes."""
    if path.is_dir():
        size = sum(each.lstat().st_size for each in path.rglob("*") if not each.is_dir())
        shutil.rmtree(path)
        return size
    size = path.lstat().st_size
    path.unlink()
    return size


if __name__ == "__main__":
    main()
