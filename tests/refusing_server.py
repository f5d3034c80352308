"""A stand-in for the server of Weights & Biases."""

from http.server import BaseHTTPRequestHandler
from typing import Any


class Refusing(BaseHTTPRequestHandler):
    """A server that takes no key."""

    def do_POST(self) -> None:
        self.rfile.read(int(self.headers.get("Content-Length", 0)))
        self.send_response(401)
        self.end_headers()

    def log_message(self, *args: Any) -> None:
        pass
