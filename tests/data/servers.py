"""Servers on loopback that behave as badly as real ones do."""

import threading
from collections import Counter
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from urllib.request import Request, urlopen

import boto3
import pytest
from moto.server import ThreadedMotoServer
from s3fs import S3FileSystem

BUCKET = "bucket"


class ShardServer(ThreadingHTTPServer):
    """Serves a folder and counts the requests for each file.

    Attributes:
        requests_of: Requests by file name.
        cut: Whether to send but a third of every third file that is asked for the first time,
            without a word about its length.
        num_refusals: How many requests for each file are answered by status 503.
    """

    daemon_threads = True

    def __init__(self, folder: Path) -> None:
        super().__init__(("127.0.0.1", 0), _Handler)
        self.folder = folder
        self.requests_of: Counter[str] = Counter()
        self.cut = False
        self.num_refusals = 0
        self.lock = threading.Lock()

    @property
    def root(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class _Handler(SimpleHTTPRequestHandler):
    server: ShardServer

    def __init__(self, request, address, server: ShardServer) -> None:
        super().__init__(request, address, server, directory=str(server.folder))

    def do_GET(self) -> None:
        name = Path(self.translate_path(self.path)).name
        with self.server.lock:
            self.server.requests_of[name] += 1
            num_requests, num_files = self.server.requests_of[name], len(self.server.requests_of)
        if num_requests <= self.server.num_refusals:
            self.send_error(503)
        elif self.server.cut and num_requests == 1 and num_files % 3 == 0:
            content = Path(self.translate_path(self.path)).read_bytes()
            self.send_response(200)
            self.end_headers()
            self.wfile.write(content[: len(content) // 3])
        else:
            super().do_GET()

    def log_message(self, format: str, *args: object) -> None:
        pass


@contextmanager
def serve(folder: Path) -> Iterator[ShardServer]:
    server = ShardServer(folder)
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield server
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


@contextmanager
def serve_s3(folder: Path) -> Iterator[str]:
    """An S3 that holds the files of a folder under `s3://bucket/set`, announced as users do it."""
    server = ThreadedMotoServer(ip_address="127.0.0.1", port=0, verbose=False)
    server.start()
    host, port = server.get_host_and_port()
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("AWS_ENDPOINT_URL", f"http://{host}:{port}")
        patch.setenv("AWS_ACCESS_KEY_ID", "key")
        patch.setenv("AWS_SECRET_ACCESS_KEY", "secret")
        patch.setenv("AWS_DEFAULT_REGION", "us-east-1")
        reset = Request(f"http://{host}:{port}/moto-api/reset", method="POST")
        urlopen(reset).close()  # what is stored belongs to the process, not to the server
        client = boto3.client("s3")
        client.create_bucket(Bucket=BUCKET)
        for path in folder.iterdir():
            client.upload_file(str(path), BUCKET, f"set/{path.name}")
        yield f"s3://{BUCKET}/set"
    server.stop()
    S3FileSystem.clear_instance_cache()  # the next server has another port
