"""Read the multipart forms that OpenAI's clients send.

Owns their quirks: the `file` part may come last, list names come with and without `[]`, objects are flattened to
`name[key]`, and the file's name and type are trusted by nobody. What cannot be read as it was meant is refused and not
guessed at: text that is no UTF-8, encoded bodies and parts, parameters in the address. A file goes to an unlinked
temporary file once it is over 1 MB; nothing of it is left when the request ends or the process dies.
"""

import asyncio
import re
import time
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
    EncodedBody,
    InvalidValue,
    MalformedForm,
    MissingField,
    RepeatedField,
    RequestStalled,
    UnexpectedParameter,
    UnknownField,
)
from speech_common.storage import storage_told

STALLED_AFTER_S = 60.0
"""How long nothing of a body may come. A client that lost its network would hold its upload's place for ever."""
# Who sends a byte a minute would hold it too. Slower than the slowest modem.
_SLOWEST_BYTES_PER_S = 1000
_MAX_FIELDS = 64
_MAX_FIELD_BYTES = 4 * 1024 * 1024
# Four voice samples of 10 s fit in, and not 64 fields of the largest size.
_MAX_FIELDS_BYTES = 16 * 1024 * 1024
_EXTENDED_FILENAME = re.compile(rb";\s*filename\*\s*=", re.IGNORECASE)
_IDENTITIES = frozenset({b"7bit", b"8bit", b"binary"})
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

    def refuse_unknown(self, accepted: Collection[str]) -> None:
        """Raise UnknownField for the first field that is not in `accepted`, where `name[key]` is a name of its own."""
        for name in sorted(self.fields):
            if name not in accepted:
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
            number = float(value) if "_" not in value else float("nan")  # Python's own takes 1_0 for 10
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
    """Raise BodyTooLarge by the announced length."""
    announced = request.headers.get("content-length", "")
    if announced.isdigit() and int(announced) > max_body_bytes:
        raise BodyTooLarge(max_body_bytes, int(announced))


def _refuse_unread(request: Request, max_body_bytes: int) -> None:
    """Refuse what the head of the request tells, before a byte of the body is read."""
    refuse_oversize(request, max_body_bytes)
    encoding = request.headers.get("content-encoding", "identity").strip()
    if encoding.lower() not in ("identity", ""):
        raise EncodedBody(encoding)
    for name in request.query_params:
        raise UnexpectedParameter(name)


async def read_form(request: Request, max_body_bytes: int, stalled_after_s: float = STALLED_AFTER_S) -> Form:
    """Receive a form, its file spooled to disk as it arrives.

    Raises BodyTooLarge, EncodedBody, UnexpectedParameter, MalformedForm, RequestStalled, StorageFull, or InvalidValue for
    a field that is no text; what was received by then is freed. A client that leaves raises the framework's
    ClientDisconnect.
    """
    _refuse_unread(request, max_body_bytes)
    content_type = request.headers.get("content-type", "")
    kind, parameters = parse_options_header(content_type)
    if kind != b"multipart/form-data":
        raise MalformedForm(f"its Content-Type is {content_type[:100] or 'missing'!r}.")
    charset = parameters.get(b"charset", b"utf-8").decode("latin-1")
    if charset.lower() not in _CHARSETS:
        # The parser would take any codec of Python's, and some of them raise what nobody expects.
        raise MalformedForm(f"its charset is {charset[:100]!r}; send UTF-8.")
    async with aclosing(_bounded(request, max_body_bytes, stalled_after_s)) as stream:
        parser = _WholeFormParser(
            request.headers, stream, max_files=1, max_fields=_MAX_FIELDS, max_part_size=_MAX_FIELD_BYTES
        )
        try:
            with storage_told():
                parsed = await parser.parse()
            if not parser.ended:
                parser.discard()
                raise MalformedForm("it ends before its closing boundary.")
        except MultiPartException as exc:
            raise MalformedForm(exc.message) from exc
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
    """The framework's parser, made strict.

    It notes whether the closing boundary came: without it, fields that were cut off would just be missing.
    """

    ended = False
    _text_bytes = 0

    def on_headers_finished(self) -> None:
        """Tell a file from a field, also where its name has only the form of RFC 5987, or is missing."""
        part = self._current_part
        headers = {name.strip(): value.strip() for name, value in part.item_headers}
        encoding = headers.get(b"content-transfer-encoding", b"binary").lower()
        if encoding not in _IDENTITIES:
            # RFC 7578, section 4.7: deprecated. Taken as it is, base64 would be a very strange prompt.
            shown = encoding[:60].decode("latin-1")
            raise MalformedForm(f"a part has the Content-Transfer-Encoding {shown!r}; send it as it is.")
        disposition = part.content_disposition or b""
        _, options = parse_options_header(disposition)
        kind = headers.get(b"content-type", b"text/plain").lower()
        sent_as_file = options.get(b"name") == b"file" and not kind.startswith(b"text/")
        if b"filename" not in options and (_EXTENDED_FILENAME.search(disposition) or sent_as_file):
            part.content_disposition = disposition + b'; filename="upload"'
        super().on_headers_finished()

    def on_part_data(self, data: bytes, start: int, end: int) -> None:
        """Take in a piece of a part, as long as all fields together stay within the limit."""
        if self._current_part.file is None:
            self._text_bytes += end - start
            if self._text_bytes > _MAX_FIELDS_BYTES:
                raise MultiPartException(f"Its fields are over {_MAX_FIELDS_BYTES} bytes together.")
        super().on_part_data(data, start, end)

    def on_part_end(self) -> None:
        """Take in a field, if it is text. Otherwise the framework would take it for Latin-1."""
        part = self._current_part
        if part.file is None:
            try:
                text = part.data.decode(self._charset)
            except UnicodeDecodeError as exc:
                shown = repr(bytes(part.data[:20]))
                raise InvalidValue(part.field_name.removesuffix("[]"), shown, "text in UTF-8") from exc
            if "\0" in text:
                raise InvalidValue(part.field_name.removesuffix("[]"), text, "text without NUL characters")
        super().on_part_end()

    def on_end(self) -> None:
        """Note the closing boundary."""
        self.ended = True

    def discard(self) -> None:
        """Free what was received, the file that was cut off included."""
        for file in self._files_to_close_on_error:
            file.close()


async def _bounded(
    request: Request, max_body_bytes: int, stalled_after_s: float
) -> AsyncGenerator[bytes, None]:
    """Pass the body on, and stop a chunked one that grows over the limit, or one of which nothing much comes any more."""
    received = 0
    began = time.monotonic()
    async with aclosing(request.stream()) as chunks:
        while True:
            try:
                async with asyncio.timeout(stalled_after_s) as limit:
                    chunk = await anext(chunks, None)
            except TimeoutError:
                if limit.expired():
                    raise RequestStalled(stalled_after_s) from None
                raise
            if chunk is None:
                return
            received += len(chunk)
            if received > max_body_bytes:
                raise BodyTooLarge(max_body_bytes, None)
            took_s = time.monotonic() - began
            if took_s > stalled_after_s and received < _SLOWEST_BYTES_PER_S * took_s:
                raise RequestStalled(stalled_after_s)
            yield chunk
