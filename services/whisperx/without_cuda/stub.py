"""Writes a shared library for Linux on x86-64 that offers names and does nothing: a call ends the process and says why.

A library of a few kilobytes, written without a compiler. Some functions may be given an answer instead.
"""  # noqa: INP001

import struct
from collections.abc import Iterable, Mapping

_PAGE = 4096
_NEEDED = "libstdc++.so.6"
# What the C++ ABI (Itanium, 2.9.5) has at the head of a class's type information; 16 bytes into it are its functions.
_CLASS_INFO, _CLASS_INFO_AT = "_ZTVN10__cxxabiv117__class_type_infoE", 16
_DATA_BYTES = 512
_R_64, _R_RELATIVE = 1, 8
_NULL, _DT_NEEDED, _HASH, _STRTAB, _SYMTAB, _RELA = 0, 1, 4, 5, 6, 7
_RELASZ, _RELAENT, _STRSZ, _SYMENT, _SONAME = 8, 9, 10, 11, 14
_FUNCTION, _OBJECT = 0x12, 0x11  # global
# write(2, rsi, rdx); kill(getpid(), SIGABRT); and for whoever ignores that, an instruction that there is none of.
_ABORT = bytes.fromhex(
    "bf02000000 b801000000 0f05 b827000000 0f05 89c7 be06000000 b83e000000 0f05 0f0b".replace(" ", "")
)


PLACE = -1
"""An answer: the address of zeros that are the function's own."""


def library(
    soname: str, functions: Iterable[str], answers: Mapping[str, int], data: Iterable[str], reason: str
) -> bytes:
    """Return a library of that name.

    Calling one of the functions writes `reason` and the function's name to stderr and aborts; what is in `answers` (PLACE,
    or 0 to 2^31) returns that instead. Data are zeros, but C++ type information, which equals itself and no other.
    """
    functions = sorted({*functions, *answers})
    data = sorted(set(data))
    types = [name for name in data if name.startswith("_ZTI")]
    names = [_CLASS_INFO, *functions, *data]
    strings, string_at = _strings([soname, _NEEDED, *names, *(name[4:] for name in types)])
    relocations = 2 * len(types)

    at = 64 + 4 * 56
    symbols_at, at = at, at + 24 * (1 + len(names))
    hash_at, at = at, at + 4 * (2 + 1 + 1 + len(names))
    at += -at % 8
    relocations_at, at = at, at + 24 * relocations
    strings_at, at = at, at + len(strings)
    code_at = at + -at % 16
    code, function_at, place_at = _code(functions, answers, reason)
    dynamic_at = code_at + len(code)
    dynamic_at += -dynamic_at % _PAGE
    data_at = dynamic_at + 16 * 12
    end = data_at + _DATA_BYTES * (len(data) + len(place_at))

    address = {name: code_at + offset for name, offset in function_at.items()}
    address |= {name: data_at + _DATA_BYTES * number for number, name in enumerate(data)}
    for number, offset in enumerate(place_at, len(data)):
        struct.pack_into("<i", code, offset, data_at + _DATA_BYTES * number - (code_at + offset + 4))
    symbols = struct.pack("<IBBHQQ", 0, 0, 0, 0, 0, 0)
    for name in names:
        place = address.get(name, 0)
        kind = _FUNCTION if name in function_at else _OBJECT
        symbols += struct.pack(
            "<IBBHQQ", string_at[name], kind, 0, 1 if place else 0, place, 8 if place else 0
        )
    # One chain for all names: they are looked up once, when a process starts.
    count = len(names) + 1
    table = struct.pack("<4I", 1, count, 1, 0) + b"".join(
        struct.pack("<I", number + 1 if number + 1 < count else 0) for number in range(1, count)
    )
    moved = b"".join(
        struct.pack("<QQq", address[name], 1 << 32 | _R_64, _CLASS_INFO_AT)
        + struct.pack("<QQq", address[name] + 8, _R_RELATIVE, strings_at + string_at[name[4:]])
        for name in types
    )
    dynamic = b"".join(
        struct.pack("<qQ", tag, value)
        for tag, value in (
            (_DT_NEEDED, string_at[_NEEDED]),
            (_SONAME, string_at[soname]),
            (_HASH, hash_at),
            (_STRTAB, strings_at),
            (_STRSZ, len(strings)),
            (_SYMTAB, symbols_at),
            (_SYMENT, 24),
            (_RELA, relocations_at),
            (_RELASZ, 24 * relocations),
            (_RELAENT, 24),
            (_NULL, 0),
            (_NULL, 0),
        )
    )
    content = bytearray(end)
    for place, part in (
        (0, _headers(dynamic_at, code_at + len(code), end, len(dynamic))),
        (symbols_at, symbols),
        (hash_at, table),
        (relocations_at, moved),
        (strings_at, strings),
        (code_at, code),
        (dynamic_at, dynamic),
    ):
        content[place : place + len(part)] = part
    return bytes(content)


def _strings(texts: Iterable[str]) -> tuple[bytes, dict[str, int]]:
    table = bytearray(b"\0")
    at = {}
    for text in texts:
        at[text] = len(table)
        table += text.encode() + b"\0"
    return bytes(table), at


def _code(
    functions: Iterable[str], answers: Mapping[str, int], reason: str
) -> tuple[bytearray, dict[str, int], list[int]]:
    """Return the machine code of all functions, where in it each begins, and where the way to each PLACE belongs."""
    code = bytearray(_ABORT)
    at: dict[str, int] = {}
    place_at = []
    messages: list[tuple[int, bytes]] = []
    for name in functions:
        code += b"\xcc" * (-len(code) % 16)
        at[name] = len(code)
        if name not in answers:
            message = f"{reason}: {name}\n".encode()
            messages.append((len(code) + 3, message))
            code += b"\x48\x8d\x35\0\0\0\0"  # lea rsi, [rip + ...]: the message
            code += b"\xba" + struct.pack("<I", len(message))  # mov edx, ...
            code += b"\xe9" + struct.pack("<i", -(len(code) + 5))  # jmp to the first instruction
        elif answers[name] == PLACE:
            place_at.append(len(code) + 3)
            code += b"\x48\x8d\x05\0\0\0\0\xc3"  # lea rax, [rip + ...]; ret
        else:
            code += b"\xb8" + struct.pack("<I", answers[name]) + b"\xc3"  # mov eax, ...; ret
    for place, message in messages:
        struct.pack_into("<i", code, place, len(code) - (place + 4))
        code += message
    return code, at, place_at


def _headers(dynamic_at: int, code_end: int, end: int, dynamic_bytes: int) -> bytes:
    """Return the file's header and its segments: one to read and execute, one to read and write."""
    execute, write, read = 1, 2, 4
    segments = (
        (1, read | execute, 0, code_end, _PAGE),
        (1, read | write, dynamic_at, end - dynamic_at, _PAGE),
        (2, read | write, dynamic_at, dynamic_bytes, 8),
        (0x6474E551, read | write, 0, 0, 16),  # the stack is not to be executed
    )
    header = b"\x7fELF\x02\x01\x01".ljust(16, b"\0")
    header += struct.pack("<HHIQQQIHHHHHH", 3, 62, 1, 0, 64, 0, 0, 64, 56, len(segments), 64, 0, 0)
    return header + b"".join(
        struct.pack("<IIQQQQQQ", kind, flags, at, at, at, size, size, align)
        for kind, flags, at, size, align in segments
    )
