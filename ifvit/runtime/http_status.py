"""What the answers of a web server mean for whoever downloads from it."""

from http import HTTPStatus
from http.client import responses

PAUSES = (1.0, 2.0, 4.0, 8.0)  # seconds before each further try
# Of a busy server or a passing fault: another try may not meet them.
PASSING_STATUS = {
    HTTPStatus.REQUEST_TIMEOUT,
    HTTPStatus.TOO_EARLY,
    HTTPStatus.TOO_MANY_REQUESTS,
    HTTPStatus.INTERNAL_SERVER_ERROR,
    HTTPStatus.BAD_GATEWAY,
    HTTPStatus.SERVICE_UNAVAILABLE,
    HTTPStatus.GATEWAY_TIMEOUT,
}


def status_text(code: int) -> str:
    """The standard's words, not the server's."""
    return f"{code} {responses.get(code, '')}".rstrip()
