"""Read the multipart forms that OpenAI's clients send.

Owns their quirks: the `file` part may come last, list names come with and without `[]`, objects are flattened to
`name[key]`, and the file's name and type are trusted by nobody. A file goes to an unlinked temporary file once it
is over 1 MB; nothing of it is left when the request ends or the process dies.
"""

import errno
from collections.abc import AsyncGenerator, Collection
from contextlib import aclosing
from dataclasses import dataclass
from types import TracebackType
from typing import BinaryIO, Self

from python_multipart.multipart import parse_options_header
from starlette.datastructures import UploadFile
from starlette.formparsers import MultiPartException, MultiPartParser
from starlette.requests import Request

from speech_common.errors import (
    BodyTooLarge,
    EmptyFile,
    InvalidValue,
    MalformedForm,
    MissingField,
    RepeatedField,
    StorageFull,
    UnknownField,
)

_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 1024 * 1024
_CHARSETS = frozenset({"utf-8", "utf8", "us-ascii", "iso-8859-1"})
_TRUE = frozenset({"true", "1"})
_FALSE = frozenset({"false", "0"})


@dataclass(frozen=True, slots=True)
class Form:
    """The fields of one request, and its upload. Leave the context to free the upload."""

    fields: dict[str, list[str]]
    upload: UploadFile | None

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(
        self, kind: type[BaseException] | None, exc: BaseException | None, traceback: TracebackType | None
    ) -> None:
        if self.upload is not None:
            await self.upload.close()

    def names(self) -> set[str]:
        """Return the fields sent, an object's `name[key]` as `name`."""
        return {name.split("[", 1)[0] for name in self.fields}

    def refuse_unknown(self, accepted: Collection[str], objects: Collection[str] = ()) -> None:
        """Raise UnknownField for the first field that is not in `accepted`; only `objects` have a `name[key]`."""
        for name in sorted(self.fields):
            if name not in accepted and name.split("[", 1)[0] not in objects:
                raise UnknownField(name, accepted)

    def many(self, name: str) -> list[str]:
        """Return the values of a list, empty ones left out."""
        return [value for value in (given.strip() for given in self.fields.get(name, [])) if value]

    def text(self, name: str) -> str | None:
        """Return the one value, or None where it was not sent or is blank."""
        values = self.fields.get(name, [])
        if len(values) > 1:
            raise RepeatedField(name)
        return values[0].strip() or None if values else None

    def boolean(self, name: str, *, default: bool) -> bool:
        """Return a flag, `true` or `false` in any case."""
        value = self.text(name)
        if value is None:
            return default
        if value.lower() in _TRUE:
            return True
        if value.lower() in _FALSE:
            return False
        raise InvalidValue(name, value, "true, false")

    def integer(self, name: str, default: int, lowest: int, highest: int) -> int:
        """Return a whole number within the bounds, both included."""
        value = self.text(name)
        if value is None:
            return default
        if value.isascii() and value.isdigit() and len(value) < 10 and lowest <= int(value) <= highest:
            return int(value)
        raise InvalidValue(name, value, f"a whole number from {lowest} to {highest}")

    def number(self, name: str, default: float, lowest: float, highest: float) -> float:
        """Return a number within the bounds, both included."""
        value = self.text(name)
        if value is None:
            return default
        try:
            number = float(value)
        except ValueError:
            number = float("nan")
        if lowest <= number <= highest:
            return number
        raise InvalidValue(name, value, f"a number from {lowest:g} to {highest:g}")

    def file(self) -> BinaryIO:
        """Return the upload, at its start. Raises MissingField or EmptyFile."""
        if self.upload is None:
            if "file" in self.fields:
                raise InvalidValue("file", "text", "a file part, with a filename (curl: -F file=@speech.wav)")
            raise MissingField("file")
        if not self.upload.size:
            raise EmptyFile
        return self.upload.file


def refuse_oversize(request: Request, max_body_bytes: int) -> None:
    """Raise BodyTooLarge by the announced length, before a byte of the body is read."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_body_bytes:
        raise BodyTooLarge(max_body_bytes, int(announced))


async def read_form(request: Request, max_body_bytes: int) -> Form:
    """Receive a form, its file spooled to disk as it arrives.

    Raises BodyTooLarge, MalformedForm or StorageFull; what was received by then is freed. A client that leaves
    raises the framework's ClientDisconnect.
    """
    refuse_oversize(request, max_body_bytes)
    content_type = request.headers.get("content-type", "")
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise MalformedForm(f"its Content-Type is {content_type[:100] or 'missing'!r}.")
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _CHARSETS:
        # The parser would take any codec of Python's, and some of them raise what nobody expects.
        raise MalformedForm(f"its charset is {charset[:100]!r}; send UTF-8.")
    async with aclosing(_bounded(request, max_body_bytes)) as stream:
        parser = _WholeFormParser(
            request.headers, stream, max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
        try:
            parsed = await parser.parse()
            if not parser.ended:
                await parsed.close()
                raise MalformedForm("it ends before its closing boundary.")
        except MultiPartException as exc:
            raise MalformedForm(exc.message) from exc
        except OSError as exc:
            if exc.errno in (errno.ENOSPC, errno.EDQUOT):
                raise StorageFull from exc
            raise
    fields: dict[str, list[str]] = {}
    upload: UploadFile | None = None
    for name, value in parsed.multi_items():
        if isinstance(value, str):
            fields.setdefault(name.removesuffix("[]"), []).append(value)
        elif name == "file":
            upload = value
        else:
            await value.close()
            raise InvalidValue(name, "a file", "text; the recording goes into 'file'")
    return Form(fields, upload)


class _WholeFormParser(MultiPartParser):
    """Notes whether the closing boundary came: without it, fields that were cut off would just be missing."""

    ended = False

    def on_end(self) -> None:
        """Note the closing boundary."""
        self.ended = True


async def _bounded(request: Request, max_body_bytes: int) -> AsyncGenerator[bytes, None]:
    """Pass the body on, and stop a chunked one that grows over the limit."""
    received = 0
    async for chunk in request.stream():
        received += len(chunk)
        if received > max_body_bytes:
            raise BodyTooLarge(max_body_bytes, None)
        yield chunk
