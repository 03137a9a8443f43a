"""One request to the Hub on localhost: which route answers it, and what every route needs."""

import json
import re
import threading
import traceback
import urllib.parse
from collections.abc import Callable
from http.server import BaseHTTPRequestHandler
from typing import Any

from tests.local_hub_store import HubError, Json, Store

LOCK = threading.Lock()
ROUTES: list[tuple[set[str], re.Pattern[str], Callable[..., None]]] = []


class Handler(BaseHTTPRequestHandler):
    """One request: finds its route, sends what it answers."""

    protocol_version = "HTTP/1.1"
    store: Store

    def log_message(self, format: str, *arguments: Any) -> None:
        """Quiet."""

    def handle_request(self) -> None:
        url = urllib.parse.urlsplit(self.path)
        self.query = {key: values[0] for key, values in urllib.parse.parse_qs(url.query).items()}
        self.body = self.rfile.read(int(self.headers.get("Content-Length") or 0))
        self.base = f"http://{self.headers['Host']}"
        method = "GET" if self.command == "HEAD" else self.command
        try:
            for methods, pattern, answer in ROUTES:
                match = pattern.fullmatch(url.path)
                if method in methods and match:
                    named = {key: urllib.parse.unquote(value or "") for key, value in match.groupdict().items()}
                    with LOCK:
                        answer(self, **named)
                    return
            raise HubError(404, message=f"no route {self.command} {url.path}")
        except HubError as error:
            headers = {"X-Error-Message": error.message, **error.headers}
            if error.code:
                headers["X-Error-Code"] = error.code
            self.send({"error": error.message}, error.status, headers)
        except Exception as error:
            traceback.print_exc()
            self.send({"error": repr(error)}, 500)

    do_GET = do_POST = do_PUT = do_DELETE = do_HEAD = handle_request

    def send(self, value: Any = None, status: int = 200, headers: Json | None = None, raw: bytes | None = None) -> None:
        data = json.dumps(value).encode() if raw is None else raw
        kind = "application/json" if raw is None else "application/octet-stream"
        self.send_response(status)
        for key, text in {"Content-Type": kind, "Content-Length": len(data), **(headers or {})}.items():
            self.send_header(key, str(text))
        self.end_headers()
        if self.command != "HEAD":
            self.wfile.write(data)

    def send_range(self, data: bytes, headers: Json) -> None:
        wanted = re.fullmatch(r"bytes=(\d+)-(\d*)", self.headers.get("Range", ""))
        if not wanted:
            self.send(raw=data, headers={"Accept-Ranges": "bytes", **headers})
            return
        first, last = int(wanted[1]), min(int(wanted[2] or len(data) - 1), len(data) - 1)
        headers = {"Accept-Ranges": "bytes", **headers, "Content-Range": f"bytes {first}-{last}/{len(data)}"}
        self.send(raw=data[first : last + 1], status=206, headers=headers)

    def user(self) -> str:
        user = self.store.users.get((self.headers.get("Authorization") or "").removeprefix("Bearer "))
        if user is None:
            raise HubError(401, message="Invalid username or password.")
        return user

    def json(self) -> Json:
        return json.loads(self.body or b"{}")

    def url_of(self, kind: str, name: str) -> str:
        return f"{self.base}/{'' if kind == 'models' else kind + '/'}{name}"


def route(methods: str, pattern: str) -> Callable[[Callable[..., None]], Callable[..., None]]:
    """Register the function that answers requests of these methods to paths of this pattern."""

    def register(answer: Callable[..., None]) -> Callable[..., None]:
        ROUTES.append((set(methods.split()), re.compile(pattern), answer))
        return answer

    return register
