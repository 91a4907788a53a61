"""Shared objects for Linux on x86-64: what one needs, lacks and offers, and how it is made to need something else.

Edits keep every byte of code where it is. The format: System V ABI, AMD64 supplement, and the Linux Standard Base 5.0,
chapter 10.7 (symbol versions).
"""  # noqa: INP001

import mmap
import struct
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import NamedTuple

_SHT_DYNAMIC, _SHT_DYNSYM, _SHT_VERNEED, _SHT_VERSYM = 6, 11, 0x6FFFFFFE, 0x6FFFFFFF
_DT_NEEDED, _DT_VERNEED, _DT_VERNEEDNUM = 1, 0x6FFFFFFE, 0x6FFFFFFF
_STT_OBJECT = 1
_VER_NDX_GLOBAL = 1
_VERSION_BITS = 0x7FFF
_HEADER, _SYMBOL, _DYNAMIC = struct.Struct("<IIQQQQIIQQ"), struct.Struct("<IBBHQQ"), struct.Struct("<qQ")
_VERNEED, _VERNAUX = struct.Struct("<HHIII"), struct.Struct("<IHHII")


class NotElf(ValueError):
    """The file is no shared object of this kind; it may be a script, or for another processor."""


class Symbol(NamedTuple):
    """What a library takes from others, and the library that is written beside it, if one is."""

    name: str
    library: str | None
    is_data: bool


class _Section(NamedTuple):
    header: int
    offset: int
    size: int
    strings: int


class SharedObject:
    """One library, as it will be when it is saved."""

    def __init__(self, path: Path) -> None:
        """Read a library. Raises NotElf."""
        self._path = path
        with path.open("rb") as file:
            if file.read(20)[:6] != b"\x7fELF\x02\x01":
                raise NotElf(str(path))
            self._bytes = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_COPY)
        if struct.unpack_from("<H", self._bytes, 18) != (62,):
            raise NotElf(str(path))
        self._sections = dict(self._read_sections())
        if _SHT_DYNAMIC not in self._sections or _SHT_DYNSYM not in self._sections:
            raise NotElf(str(path))

    def needed(self) -> list[str]:
        """Return the libraries it is linked with."""
        strings = self._sections[_SHT_DYNAMIC].strings
        return [self._text(strings + value) for tag, value in self._dynamic() if tag == _DT_NEEDED]

    def lacks(self) -> Iterator[Symbol]:
        """Yield what others must offer."""
        symbols = self._sections[_SHT_DYNSYM]
        libraries = {
            version: self._text(self._sections[_SHT_VERNEED].strings + file)
            for _, file, versions in self._version_needs()
            for version in versions
        }
        for number, (name, info, _, section, _, _) in enumerate(self._symbols()):
            if name and not section:
                library = libraries.get(self._version(number) & _VERSION_BITS)
                yield Symbol(self._text(symbols.strings + name), library, info & 15 == _STT_OBJECT)

    def offers(self) -> Iterator[str]:
        """Yield the names that it defines for others."""
        strings = self._sections[_SHT_DYNSYM].strings
        for name, info, _, section, _, _ in self._symbols():
            if name and section and info >> 4:
                yield self._text(strings + name)

    def replace_needed(self, libraries: Iterable[str], by: str) -> None:
        """Take `by` for all these libraries, and whatever came from them from anywhere, without a version.

        `by` is at most as long as the first of their names that it is linked with: it is written over that one.
        """
        gone = set(libraries)
        dropped_versions, first_kept, kept_count = self._drop_version_needs(gone)
        if dropped_versions:
            versions = self._sections[_SHT_VERSYM].offset
            for number in range(self._sections[_SHT_DYNSYM].size // _SYMBOL.size):
                if self._version(number) & _VERSION_BITS in dropped_versions:
                    struct.pack_into("<H", self._bytes, versions + 2 * number, _VER_NDX_GLOBAL)
        section = self._sections[_SHT_DYNAMIC]
        entries: list[tuple[int, int]] = []
        is_named = False
        for tag, value in self._dynamic():
            if tag == _DT_NEEDED and (name := self._text(section.strings + value)) in gone:
                if is_named:
                    continue
                if len(by) > len(name):
                    raise ValueError(f"{by} is longer than {name}")
                at = section.strings + value
                self._bytes[at : at + len(name)] = by.encode().ljust(len(name), b"\0")
                is_named = True
                entries.append((tag, value))
            elif tag == _DT_VERNEED:
                entries.append((tag, value + first_kept))
            elif tag == _DT_VERNEEDNUM:
                entries.append((tag, kept_count))
            else:
                entries.append((tag, value))
        packed = b"".join(_DYNAMIC.pack(*entry) for entry in entries)
        self._bytes[section.offset : section.offset + section.size] = packed.ljust(section.size, b"\0")

    def save(self) -> None:
        """Put it in the place of the file, which may be a hard link into a package manager's cache."""
        written = self._path.with_name(f".{self._path.name}.part")
        written.write_bytes(self._bytes)
        written.chmod(self._path.stat().st_mode & 0o777)
        written.replace(self._path)

    def _drop_version_needs(self, gone: set[str]) -> tuple[set[int], int, int]:
        """Unlink the needs of these libraries; return their versions' numbers, and where the others begin and how many."""
        if _SHT_VERNEED not in self._sections:
            return set(), 0, 0
        header, start, size, strings = self._sections[_SHT_VERNEED]
        dropped: set[int] = set()
        kept = []
        for offset, file, versions in self._version_needs():
            if self._text(strings + file) in gone:
                dropped.update(versions)
            else:
                kept.append(offset)
        if not kept:
            raise NotElf(f"{self._path}: needs no version of the C library")
        for offset, following in zip(kept, [*kept[1:], None], strict=True):
            struct.pack_into("<I", self._bytes, offset + 12, 0 if following is None else following - offset)
        shift = kept[0] - start
        address, _ = struct.unpack_from("<QQ", self._bytes, header + 16)
        struct.pack_into("<QQQ", self._bytes, header + 16, address + shift, start + shift, size - shift)
        struct.pack_into("<I", self._bytes, header + 44, len(kept))
        self._sections[_SHT_VERNEED] = _Section(header, start + shift, size - shift, strings)
        return dropped, shift, len(kept)

    def _version_needs(self) -> Iterator[tuple[int, int, list[int]]]:
        """Yield where each library's needs stand, its name's place, and its versions' numbers."""
        if _SHT_VERNEED not in self._sections:
            return
        offset = self._sections[_SHT_VERNEED].offset
        while True:
            _, count, file, first, following = _VERNEED.unpack_from(self._bytes, offset)
            versions = []
            at = offset + first
            for _ in range(count):
                _, _, version, _, step = _VERNAUX.unpack_from(self._bytes, at)
                versions.append(version)
                at += step
            yield offset, file, versions
            if not following:
                return
            offset += following

    def _version(self, number: int) -> int:
        if _SHT_VERSYM not in self._sections:
            return _VER_NDX_GLOBAL
        (version,) = struct.unpack_from("<H", self._bytes, self._sections[_SHT_VERSYM].offset + 2 * number)
        return int(version)

    def _dynamic(self) -> list[tuple[int, int]]:
        _, offset, size, _ = self._sections[_SHT_DYNAMIC]
        return [(tag, value) for tag, value in _DYNAMIC.iter_unpack(self._bytes[offset : offset + size])]

    def _symbols(self) -> Iterator[tuple[int, ...]]:
        _, offset, size, _ = self._sections[_SHT_DYNSYM]
        return _SYMBOL.iter_unpack(self._bytes[offset : offset + size])

    def _text(self, at: int) -> str:
        return self._bytes[at : self._bytes.find(b"\0", at)].decode()

    def _read_sections(self) -> Iterator[tuple[int, _Section]]:
        (table,) = struct.unpack_from("<Q", self._bytes, 40)
        size, count = struct.unpack_from("<HH", self._bytes, 58)
        headers = range(table, table + count * size, size)
        for header in headers:
            _, kind, _, _, offset, length, link, *_ = _HEADER.unpack_from(self._bytes, header)
            if kind in (_SHT_DYNAMIC, _SHT_DYNSYM, _SHT_VERNEED, _SHT_VERSYM):
                strings = _HEADER.unpack_from(self._bytes, headers[link])[4]
                yield kind, _Section(header, offset, length, strings)
