"""The library that stands in for CUDA's, and how others are linked with it: on real libraries, in processes of their own."""

import ctypes
import importlib.util
import platform
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest

TOOL = Path(__file__).parents[2] / "services" / "whisperx" / "without_cuda"
pytestmark = pytest.mark.skipif(platform.machine() != "x86_64", reason="it is for x86-64")


@pytest.fixture(scope="module")
def tool():
    """Its modules, which are run as a directory and are no package."""

    def module(name):
        spec = importlib.util.spec_from_file_location(f"without_cuda_{name}", TOOL / f"{name}.py")
        loaded = importlib.util.module_from_spec(spec)
        spec.loader.exec_module(loaded)
        return loaded

    return {name: module(name) for name in ("elf", "stub")}


@pytest.fixture
def stub(tool, tmp_path):
    """A library with a function of each kind, and with data."""
    path = tmp_path / "libstub.so"
    answers = {"answers": 100, "keeps": tool["stub"].PLACE, "keeps_too": tool["stub"].PLACE}
    functions = {"refuses", "refuses_too", *answers}
    path.write_bytes(tool["stub"].library("libstub.so", functions, answers, ["data", "_ZTI5Thing"], "no GPU"))
    return path


def test_function_with_an_answer_gives_it(stub):
    library = ctypes.CDLL(str(stub))
    assert library.answers() == 100


def test_functions_with_a_place_have_each_its_own_that_can_be_written(stub):
    library = ctypes.CDLL(str(stub))
    for function in (library.keeps, library.keeps_too):
        function.restype = ctypes.c_void_p
    assert library.keeps() == library.keeps()
    ctypes.c_int64.from_address(library.keeps()).value = 7
    assert ctypes.c_int64.from_address(library.keeps()).value == 7
    assert ctypes.c_int64.from_address(library.keeps_too()).value == 0


@pytest.mark.parametrize("function", ["refuses", "refuses_too"])
def test_function_without_an_answer_ends_the_process_and_says_which_it_is(stub, function):
    call = f"import ctypes; ctypes.CDLL({str(stub)!r}).{function}()"
    done = subprocess.run([sys.executable, "-c", call], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (-signal.SIGABRT, f"no GPU: {function}\n")


def test_data_are_zeros_and_type_information_has_the_name_of_its_class(stub):
    library = ctypes.CDLL(str(stub))
    assert bytes((ctypes.c_char * 64).in_dll(library, "data")) == bytes(64)
    functions, name = (ctypes.c_void_p * 2).in_dll(library, "_ZTI5Thing")
    assert ctypes.string_at(name) == b"5Thing"
    offered = ctypes.CDLL("libstdc++.so.6")
    table = ctypes.c_char.in_dll(offered, "_ZTVN10__cxxabiv117__class_type_infoE")
    assert functions == ctypes.addressof(table) + 16


GONE = ("libm.so.6", "libgcc_s.so.1")
_VERNEED, _VERNEEDNUM = 0x6FFFFFFE, 0x6FFFFFFF


@pytest.fixture(scope="module")
def libstdcxx():
    """A real library that is linked with several, with versions of each."""
    ctypes.CDLL("libstdc++.so.6")
    maps = Path("/proc/self/maps").read_text().split()
    return Path(next(path for path in maps if "/libstdc++.so.6" in path))


@pytest.fixture
def copy(tool, tmp_path, libstdcxx):
    """That library, which takes libs.so for two of those."""
    copied = tmp_path / "libcopy.so"
    shutil.copy(libstdcxx, copied)
    library = tool["elf"].SharedObject(copied)
    library.replace_needed(GONE, "libs.so")
    library.save()
    return copied


def test_library_takes_another_instead_and_keeps_everything_else(tool, copy, libstdcxx):
    before, after = tool["elf"].SharedObject(libstdcxx), tool["elf"].SharedObject(copy)
    assert before.needed() == ["libm.so.6", "libc.so.6", "ld-linux-x86-64.so.2", "libgcc_s.so.1"]
    assert after.needed() == ["libs.so", "libc.so.6", "ld-linux-x86-64.so.2"]
    assert set(after.offers()) == set(before.offers())
    assert copy.stat().st_size == libstdcxx.stat().st_size


def test_library_offers_what_it_defines_and_lacks_what_it_does_not(tool, libstdcxx):
    library = tool["elf"].SharedObject(libstdcxx)
    offered, lacked = set(library.offers()), {symbol.name: symbol for symbol in library.lacks()}
    assert {"__cxa_throw", "_ZSt4cout"} <= offered
    assert not offered & set(lacked)
    assert lacked["_Unwind_Resume"] == ("_Unwind_Resume", "libgcc_s.so.1", False)
    assert lacked["stdout"].is_data


def test_what_came_from_the_old_libraries_is_taken_from_anywhere(tool, copy, libstdcxx):
    before, after = ({*tool["elf"].SharedObject(path).lacks()} for path in (libstdcxx, copy))
    assert {symbol.library for symbol in before} >= set(GONE)
    assert after == {symbol._replace(library=None) if symbol.library in GONE else symbol for symbol in before}


def test_versions_that_are_still_needed_are_as_many_as_it_says(tool, copy, libstdcxx):
    before, after = (dict(tool["elf"].SharedObject(path)._dynamic()) for path in (libstdcxx, copy))
    needs = [offset for offset, *_ in tool["elf"].SharedObject(copy)._version_needs()]
    assert after[_VERNEEDNUM] == len(needs) == before[_VERNEEDNUM] - len(GONE)


def test_loader_takes_the_functions_of_the_library_that_stands_in(tool, copy, libstdcxx):
    lacked = [symbol for symbol in tool["elf"].SharedObject(libstdcxx).lacks() if symbol.library in GONE]
    instead = copy.with_name("libs.so")
    functions = [symbol.name for symbol in lacked if not symbol.is_data]
    data = [symbol.name for symbol in lacked if symbol.is_data]
    instead.write_bytes(tool["stub"].library("libs.so", functions, {}, data, "no GPU"))
    load = f"import os, ctypes; ctypes.CDLL({str(copy)!r}, os.RTLD_NOW | os.RTLD_DEEPBIND)"
    environment = {"LD_LIBRARY_PATH": str(instead.parent), "LD_DEBUG": "bindings,versions", "PATH": ""}
    done = subprocess.run([sys.executable, "-c", load], capture_output=True, text=True, env=environment)
    assert done.returncode == 0, done.stderr[-2000:]
    for name in functions:
        assert f"binding file {copy} [0] to {instead} [0]: normal symbol `{name}'\n" in done.stderr
    checked = set(
        re.findall(rf"checking for version `.*' in file (\S+) \[0\] required by file {copy}", done.stderr)
    )
    assert {Path(path).name for path in checked} == {"libc.so.6", "ld-linux-x86-64.so.2"}


def test_library_that_is_a_link_into_a_cache_leaves_the_cache_alone(tool, tmp_path, libstdcxx):
    cached, installed = tmp_path / "cached.so", tmp_path / "installed.so"
    shutil.copy(libstdcxx, cached)
    installed.hardlink_to(cached)
    library = tool["elf"].SharedObject(installed)
    library.replace_needed(["libm.so.6"], "libs.so")
    library.save()
    assert cached.read_bytes() == libstdcxx.read_bytes() != installed.read_bytes()


@pytest.mark.parametrize(
    "content", [b"", b"#!/bin/sh\n", b"\x7fELF\x01\x01\x01" + bytes(60), b"\x7fELF\x02\x01\x01" + bytes(60)]
)
def test_what_is_no_library_for_this_processor_is_told(tool, tmp_path, content):
    file = tmp_path / "lib.so"
    file.write_bytes(content)
    with pytest.raises(tool["elf"].NotElf):
        tool["elf"].SharedObject(file)


def test_torch_for_the_cpu_is_left_as_it_is(tmp_path, libstdcxx):
    libraries = tmp_path / "torch" / "lib"
    libraries.mkdir(parents=True)
    shutil.copy(libstdcxx, libraries / "libtorch_cpu.so")
    (libraries.parent / "version.py").write_text("cuda: Optional[str] = None\n")
    done = subprocess.run([sys.executable, "-I", TOOL, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stdout) == (0, "without_cuda: 0 MB less\n")
    assert sorted(path.name for path in libraries.iterdir()) == ["libtorch_cpu.so"]


def test_directory_without_torch_is_told(tmp_path):
    done = subprocess.run([sys.executable, "-I", TOOL, tmp_path], capture_output=True, text=True)
    assert (done.returncode, done.stderr) == (1, f"without_cuda: no torch in {tmp_path}\n")


def test_name_that_has_no_room_is_refused(tool, libstdcxx):
    with pytest.raises(ValueError, match=r"libnothing\.so is longer than libm\.so\.6"):
        tool["elf"].SharedObject(libstdcxx).replace_needed(["libm.so.6"], "libnothing.so")
