"""What a request is told when it is not forwarded. Imports nothing of ours but the rest of the tree."""

from autostart.errors.failures import RuntimeFailure
from autostart.errors.root import AutostartError


class RequestRefused(AutostartError):
    """The request is not let in; it wakes nothing."""


class UnknownHost(RequestRefused):
    """No service has this host name. Never lists those there are."""

    def __init__(self, host: str) -> None:
        self.host = host
        super().__init__("no service has this host name")


class Unauthorized(RequestRefused):
    """No credentials, or wrong ones."""

    def __init__(self, realm: str, *, offered: bool) -> None:
        self.realm = realm
        self.offered = offered
        super().__init__(
            "these credentials are not valid here" if offered else "this service needs credentials"
        )


class Forbidden(RequestRefused):
    """Known, but not allowed to use this service."""

    def __init__(self, identity: str) -> None:
        self.identity = identity
        super().__init__("these credentials do not allow the use of this service")


class BodyTooLarge(RequestRefused):
    """The body is over the service's `maxBodySize`; `declared_bytes` is None where it was chunked."""

    def __init__(self, limit_bytes: int, declared_bytes: int | None = None) -> None:
        self.limit_bytes = limit_bytes
        self.declared_bytes = declared_bytes
        super().__init__(f"the request body is larger than the {limit_bytes} bytes that this service accepts")


class BadRequest(RequestRefused):
    """The request cannot be forwarded as it is (a malformed Host, say)."""


class HeadersTooLarge(RequestRefused):
    """The request line and headers are more than anyone needs."""

    def __init__(self, limit_bytes: int) -> None:
        self.limit_bytes = limit_bytes
        super().__init__(f"the request's headers are larger than the {limit_bytes} bytes that are accepted")


class HeaderTimeout(RequestRefused):
    """The client did not finish its request line and headers within `headerTimeout`."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(f"the request's headers were not complete within {limit_s:g} s")


class BodyTimeout(RequestRefused):
    """The client sent nothing more of its body for the service's `bodyTimeout`."""

    def __init__(self, limit_s: float) -> None:
        self.limit_s = limit_s
        super().__init__(f"nothing more of the request body came for {limit_s:g} s")


class ServiceUnavailable(AutostartError):
    """The service cannot take this request. `service` is its host name in the configuration."""

    retry_after_s: float | None = None

    def __init__(self, service: str, message: str) -> None:
        self.service = service
        super().__init__(message)


class StartFailed(ServiceUnavailable):
    """The start that this request waited for failed."""

    def __init__(self, service: str, failure: RuntimeFailure, retry_after_s: float) -> None:
        self.failure = failure
        self.retry_after_s = retry_after_s
        super().__init__(service, f"the service could not be started: {failure}")


class StartHeldOff(ServiceUnavailable):
    """The last start failed, and the next one is held off for `retry_after_s`."""

    def __init__(self, service: str, failure: RuntimeFailure, retry_after_s: float) -> None:
        self.failure = failure
        self.retry_after_s = retry_after_s
        super().__init__(service, f"the last start failed, the next is held off: {failure}")


class StartTimeout(ServiceUnavailable):
    """The service was not ready within the request's `waitTimeout`; the start itself goes on."""

    def __init__(self, service: str, waited_s: float, retry_after_s: float) -> None:
        self.waited_s = waited_s
        self.retry_after_s = retry_after_s
        super().__init__(service, f"the service was not ready within {waited_s:g} s; it is still starting")


class Starting(ServiceUnavailable):
    """The service is being started and this request does not wait (`blocking: false`)."""

    def __init__(self, service: str, retry_after_s: float) -> None:
        self.retry_after_s = retry_after_s
        super().__init__(service, "the service is starting")


class Asleep(ServiceUnavailable):
    """A quiet request met a sleeping service and does not wake it."""

    def __init__(self, service: str) -> None:
        super().__init__(service, "the service is asleep, and this kind of request does not wake it")


class ShuttingDown(ServiceUnavailable):
    """autostart is stopping and takes no new work."""

    retry_after_s = 5.0

    def __init__(self, service: str) -> None:
        super().__init__(service, "autostart is shutting down")


class InUse(ServiceUnavailable):
    """A stop was asked for, but requests are open and it was not forced."""

    def __init__(self, service: str, leases: int) -> None:
        self.leases = leases
        super().__init__(service, f"the service is in use by {leases} request(s)")


class UpstreamFailed(ServiceUnavailable):
    """The service refused or broke the connection before it answered."""

    def __init__(self, service: str, detail: str) -> None:
        self.detail = detail
        super().__init__(service, f"the service did not answer properly: {detail}")


class UpstreamTimeout(ServiceUnavailable):
    """The service was silent beyond `responseTimeout`."""

    def __init__(self, service: str, waited_s: float) -> None:
        self.waited_s = waited_s
        super().__init__(service, f"the service has not answered within {waited_s:g} s")
