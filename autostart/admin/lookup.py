"""Find the service that a person means: host name, alias, or the beginning of one that fits no other.

Pure; imports nothing of ours.
"""

from collections.abc import Iterable, Mapping


class NoSuchService(LookupError):
    """No service is called that; `similar` are the host names that come near."""

    def __init__(self, wanted: str, similar: Iterable[str]) -> None:
        self.wanted = wanted
        self.similar = tuple(similar)
        *first, last = self.similar or ("",)
        named = f"{', '.join(first)} or {last}" if first else last
        super().__init__(f"no service is called {wanted!r}" + (f"; did you mean {named}?" if named else ""))


class AmbiguousService(LookupError):
    """Several services begin like that; `candidates` are their host names."""

    def __init__(self, wanted: str, candidates: Iterable[str]) -> None:
        self.wanted = wanted
        self.candidates = tuple(sorted(candidates))
        super().__init__(f"{wanted!r} is the beginning of several services: {', '.join(self.candidates)}")


def find(wanted: str, hosts: Iterable[str], aliases: Mapping[str, str]) -> str:
    """Return the host name in the configuration of the service that `wanted` means.

    `aliases` leads from further host names to those in `hosts`. `whisper` means `whisper.example.org` even
    beside `whisperx.example.org`: whole labels go before parts of them. Raises NoSuchService, AmbiguousService.
    """
    names = {host: host for host in hosts} | dict(aliases)
    name = wanted.strip().lower().removesuffix(".")
    if name in names:
        return names[name]
    for beginning in (f"{name}.", name):
        found = {host for known, host in names.items() if known.startswith(beginning)}
        if name and len(found) == 1:
            return found.pop()
        if name and found:
            raise AmbiguousService(wanted, found)
    similar = sorted({host for known, host in names.items() if name and name in known})
    raise NoSuchService(wanted, similar[:5])
