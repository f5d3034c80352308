"""A server in a process of its own: real clients, load, hostile ones, and signals in mid-flight."""

import csv
import http.client
import json
import re
import signal
import socket
import threading
import time
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import httpx
import numpy as np
import pytest
from PIL import Image
from serving_worlds import CLASSES, Process, served_process, write_run

from ssl_swin.cli import main

pytestmark = pytest.mark.slow
PNG = {"content-type": "image/png"}
NUM_IMAGES, NUM_CLIENTS = 12, 8


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("serving")
    write_run(folder)
    (folder / "photos").mkdir()
    for number in range(NUM_IMAGES):
        noise = np.random.default_rng(number).integers(0, 255, (70 + number, 80, 3), dtype=np.uint8)
        Image.fromarray(noise).save(folder / f"photos/{number:02}.png")
    return folder


@pytest.fixture(scope="module")
def server(folder: Path) -> Iterator[Process]:
    """One for the tests that leave it as it was; none of them makes it say a word."""
    options = ("--max-image-mb", "1", "--max-request-mb", "2", "--timeout-s", "3")
    with served_process(folder, "run", *options) as process:
        yield process
        assert process.stop() == 128 + signal.SIGTERM
        said = re.sub(r"after [\d,]+ requests", "after N requests", process.said())
        listening = f"listening on {process.url}; Ctrl-C stops it\n"
        assert said == listening + "ssl-swin: stopped by SIGTERM after N requests\n"


def photos(folder: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in sorted((folder / "photos").iterdir())}


def predicted(folder: Path, *options: str) -> dict[str, Any]:
    """What `ssl-swin predict` says of each photo."""
    out = folder / "classes.jsonl"
    out.unlink(missing_ok=True)
    words = ["predict", str(folder / "run"), str(folder / "photos"), str(out), "--device", "cpu"]
    assert main([*words, "--workers", "0", *options]) == 0
    return {line["name"]: line for line in map(json.loads, out.read_text().splitlines())}


def test_predict__is_equal_to_the_command(folder: Path, server: Process) -> None:
    expected = predicted(folder, "--batch-size", "1")
    assert len({each["predictions"][0]["class"] for each in expected.values()}) > 1
    for name, data in photos(folder).items():
        answer = httpx.post(f"{server.url}/predict", files={"file": (name, data)})
        assert answer.json() == {"results": [expected[name]]}
    answer = httpx.post(
        f"{server.url}/predict", files=[("f", each) for each in photos(folder).items()]
    )
    for found in answer.json()["results"]:
        wanted = expected[found["name"]]["predictions"]
        assert [each["class"] for each in found["predictions"]] == [e["class"] for e in wanted]
        scores = [[each["score"] for each in listed] for listed in (found["predictions"], wanted)]
        np.testing.assert_allclose(*scores, rtol=1e-4)


def test_embed__is_equal_to_the_command(folder: Path) -> None:
    with served_process(folder, "backbone", "--normalize", "--pooling", "max") as server:
        names, url = sorted(photos(folder)), f"{server.url}/embed"
        answers = [httpx.post(url, content=photos(folder)[name]).json() for name in names]
        assert httpx.post(f"{server.url}/predict", content=b"").status_code == 404
    out = folder / "vectors.csv"
    words = ["embed", str(folder / "backbone"), str(folder / "photos"), str(out), "--normalize"]
    options = ["--pooling", "max", "--device", "cpu", "--workers", "0", "--batch-size", "1"]
    assert main([*words, *options]) == 0
    with out.open(newline="") as file:
        rows = list(csv.reader(file))[1:]
    assert [row[0] for row in rows] == names
    expected = np.array([row[2:] if row[1] == "" else row[1:] for row in rows], dtype=np.float32)
    found = np.array([answer["results"][0]["vector"] for answer in answers], dtype=np.float32)
    np.testing.assert_array_equal(found, expected)


def test_calibration_is_used(folder: Path, tmp_path: Path) -> None:
    write_run(tmp_path)
    for number, name in enumerate(photos(folder)):
        target = tmp_path / "photos" / CLASSES[number % 3] / name
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_bytes(photos(folder)[name])
    words = ["calibrate", str(tmp_path / "run"), str(tmp_path / "photos"), "--workers", "0"]
    assert main([*words, "--device", "cpu"]) == 0
    expected = predicted(tmp_path, "--batch-size", "1")
    with served_process(tmp_path, "run") as server:
        for name, line in expected.items():
            content = (tmp_path / "photos" / name).read_bytes()
            (found,) = httpx.post(f"{server.url}/predict", content=content).json()["results"]
            assert found["predictions"] == line["predictions"]
        assert "note: probabilities are calibrated on 12 images" in server.said()


def clients(number: int, work: Callable[[int], None]) -> None:
    """Runs several clients at once; the first that fails fails the test."""
    failures: list[BaseException] = []

    def run(each: int) -> None:
        try:
            work(each)
        except BaseException as error:
            failures.append(error)

    threads = [threading.Thread(target=run, args=(each,)) for each in range(number)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join(120)
        assert not thread.is_alive()
    if failures:
        raise failures[0]


def test_load__every_client_gets_its_own_answer(folder: Path, server: Process) -> None:
    expected, images = predicted(folder), photos(folder)
    before = httpx.get(f"{server.url}/metrics").text

    def work(number: int) -> None:
        with httpx.Client(base_url=server.url) as client:
            for turn in range(40):
                name = sorted(images)[(number * 7 + turn) % NUM_IMAGES]
                answer = client.post("/predict", content=images[name], headers=PNG)
                assert answer.status_code == 200, answer.text
                (found,) = answer.json()["results"]
                wanted = expected[name]["predictions"]
                for ours, theirs in zip(found["predictions"], wanted, strict=True):
                    assert ours["class"] == theirs["class"]
                    assert ours["score"] == pytest.approx(theirs["score"], rel=1e-3)

    clients(NUM_CLIENTS, work)
    after = httpx.get(f"{server.url}/metrics").text

    def since(name: str) -> float:
        value = rf"^ssl_swin_{re.escape(name)} ([\d.]+)$"
        found = [re.findall(value, text, re.MULTILINE) for text in (before, after)]
        return float(found[1][0]) - float(found[0][0] if found[0] else 0)

    number = NUM_CLIENTS * 40
    assert since('requests_total{path="/predict",status="200"}') == number
    assert since("batch_images_sum") == number
    assert since("batch_images_count") < number, "not one batch had two images"


@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT], ids=["SIGTERM", "SIGINT"])
@pytest.mark.parametrize("is_kept", [True, False], ids=["kept", "new"])
def test_stop_in_mid_flight__every_request_gets_its_answer(
    folder: Path, number: int, is_kept: bool
) -> None:
    """A connection that is refused sent nothing; whatever was sent is answered, 200 or 503."""
    images = list(photos(folder).values())
    statuses: Counter[int] = Counter()
    options = ("--batch-size", "4", "--max-wait-ms", "50")
    with served_process(folder, "run", *options) as server:
        host, port = server.address

        def work(client: int) -> None:
            connection = http.client.HTTPConnection(host, port, timeout=60)
            while True:
                try:
                    if connection.sock is None:
                        connection.connect()
                except ConnectionRefusedError:
                    return
                connection.request("POST", "/predict", images[client % NUM_IMAGES], PNG)
                answer = connection.getresponse()
                told = json.loads(answer.read())
                statuses[answer.status] += 1
                if answer.status == 503:
                    assert told == {"error": "the server is stopping"}
                    assert answer.headers["connection"] == "close"
                    return
                assert answer.status == 200 and len(told["results"]) == 1
                if not is_kept:
                    connection.close()

        def stop() -> None:
            time.sleep(2)
            server.process.send_signal(number)

        stopping = threading.Thread(target=stop)
        stopping.start()
        clients(NUM_CLIENTS, work)
        stopping.join()
        assert server.process.wait(30) == 128 + number
        said = server.said().splitlines()
    print(f"{statuses[200]} requests answered, {statuses[503]} refused with 503, none lost")
    assert statuses.keys() == {200, 503} and statuses[200] > 3 * NUM_CLIENTS
    assert statuses[503] == NUM_CLIENTS
    name = "Ctrl-C" if number == signal.SIGINT else "SIGTERM"
    assert said[-1] == f"ssl-swin: stopped by {name} after {sum(statuses.values())} requests"
    told = "stopping after the requests in flight; Ctrl-C again ends at once"
    assert (told in said) == (number == signal.SIGINT)


def test_slow_upload_at_the_end__is_still_answered(folder: Path) -> None:
    data = next(iter(photos(folder).values()))
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n".encode()
    with (
        served_process(folder, "run") as server,
        socket.create_connection(server.address, timeout=30) as slow,
        socket.create_connection(server.address, timeout=30),  # which never says a word
    ):
        slow.sendall(head + data[:100])
        time.sleep(0.5)
        server.process.send_signal(signal.SIGTERM)
        time.sleep(2)
        assert server.process.poll() is None
        assert httpx.get(f"{server.url}/health").json()["status"] == "stopping"
        slow.sendall(data[100:])
        answer = http.client.HTTPResponse(slow)
        answer.begin()
        assert answer.status == 200 and len(json.loads(answer.read())["results"]) == 1
        assert server.process.wait(30) == 143


def test_second_ctrl_c__ends_at_once(folder: Path) -> None:
    with (
        served_process(folder, "run") as server,
        socket.create_connection(server.address, timeout=30) as slow,
    ):
        slow.sendall(b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 9\r\n\r\n123")
        time.sleep(0.5)
        server.process.send_signal(signal.SIGINT)
        time.sleep(1.5)
        assert server.process.poll() is None
        assert server.stop(signal.SIGINT) == 130
        assert "stopped at once by Ctrl-C" in server.said()


def raw(server: Process, sent: bytes, *, shut: bool = False) -> bytes:
    """Sends bytes and returns all that comes back until the server closes, or "" if it resets."""
    with socket.create_connection(server.address, timeout=30) as connection:
        try:
            connection.sendall(sent)
            if shut:
                connection.shutdown(socket.SHUT_WR)
            parts = []
            while part := connection.recv(65536):
                parts.append(part)
            return b"".join(parts)
        except OSError:
            return b""


@pytest.mark.parametrize(
    "sent",
    [
        b"\0\1\2\3\r\n\r\n",
        b"GET\r\n\r\n",
        b"POST /predict HTTP/1.1\r\ncontent-length: -1\r\n\r\n",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 5\r\ncontent-length: 6\r\n\r\n12345",
        b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\nZZ\r\n",
        b"GET / HTTP/1.1\r\nhost: x\r\n" + b"a: b\r\n" * 50_000,
        b"GET /" + b"a" * 1_000_000 + b" HTTP/1.1\r\n\r\n",
        bytes(100_000),
    ],
    ids=range(8),
)
def test_no_http__is_closed(server: Process, sent: bytes) -> None:
    answer = raw(server, sent, shut=True)
    assert answer == b"" or answer.startswith(b"HTTP/1.1 400 ")
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_huge_body_in_chunks__is_refused(server: Process) -> None:
    """Without a Content-Length: what the client may still send is cut off."""

    def chunks(number: int) -> Iterator[bytes]:
        for _ in range(number):
            yield bytes(65536)

    answer = httpx.post(f"{server.url}/predict", content=chunks(64), headers=PNG)
    assert answer.status_code == 413
    assert answer.json()["error"].startswith("the request is larger than 2 MB")
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ntransfer-encoding: chunked\r\n\r\n"
    chunk = b"10000\r\n" + bytes(65536) + b"\r\n"
    start_s = time.monotonic()
    answer_of_endless = raw(server, head + chunk * 4096)
    assert answer_of_endless == b"" or b"413" in answer_of_endless
    assert time.monotonic() - start_s < 30


def test_huge_body__is_refused_before_it_is_sent(server: Process) -> None:
    head = b"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: 999999999999\r\n"
    answer = raw(server, head + b"expect: 100-continue\r\n\r\n")
    assert answer.startswith(b"HTTP/1.1 413 ") and b"larger than 2 MB" in answer


def test_slow_clients__are_let_go(server: Process) -> None:
    """A body that never ends, and a head that never ends."""
    host = b"POST /predict HTTP/1.1\r\nhost: x\r\n"
    body = socket.create_connection(server.address, timeout=30)
    body.sendall(host + b"content-length: 1000\r\n\r\n123")
    answer = http.client.HTTPResponse(body)
    answer.begin()
    assert answer.status == 408
    assert json.loads(answer.read()) == {"error": "the request was not whole after 3 s"}
    assert body.recv(10) == b""

    head = socket.create_connection(server.address, timeout=30)
    start_s = time.monotonic()
    with pytest.raises(ConnectionError):
        for letter in b"x" * 200:
            head.sendall(bytes([letter]))
            time.sleep(0.1)
    assert time.monotonic() - start_s < 18


def test_answers_that_are_not_taken__end_the_connection(server: Process) -> None:
    """Requests in a row, of which the client hears no answer."""
    connection = socket.socket()
    connection.setsockopt(socket.SOL_SOCKET, socket.SO_RCVBUF, 4096)
    connection.settimeout(60)
    connection.connect(server.address)
    start_s = time.monotonic()
    with pytest.raises(ConnectionError):
        connection.sendall(b"GET / HTTP/1.1\r\nhost: x\r\n\r\n" * 1_000_000)
    assert time.monotonic() - start_s < 40
    assert httpx.get(f"{server.url}/health").status_code == 200


def test_many_idle_connections__are_let_go(server: Process) -> None:
    idle = [socket.create_connection(server.address, timeout=30) for _ in range(540)]
    try:
        last = http.client.HTTPResponse(idle[-1])
        last.begin()
        assert (last.status, last.headers["retry-after"]) == (503, "1")
        end_s = time.monotonic() + 25
        while httpx.get(f"{server.url}/health").status_code == 503:
            assert time.monotonic() < end_s
            time.sleep(0.5)
    finally:
        for connection in idle:
            connection.close()


def test_early_disconnects__leave_nothing_behind(folder: Path, server: Process) -> None:
    data = next(iter(photos(folder).values()))
    head = f"POST /predict HTTP/1.1\r\nhost: x\r\ncontent-length: {len(data)}\r\n\r\n".encode()
    for part in (b"", data[:50], data):
        for _ in range(20):
            with socket.create_connection(server.address, timeout=30) as connection:
                connection.sendall(head + part)
    gone = 'ssl_swin_requests_total{path="/predict",status="499"}'
    end_s = time.monotonic() + 20
    while time.monotonic() < end_s:
        text = httpx.get(f"{server.url}/metrics").text
        if "ssl_swin_requests_in_work 1\n" in text and gone in text:  # this one is in work
            break
        time.sleep(0.2)
    assert "ssl_swin_images_in_work 0\n" in text and "ssl_swin_body_bytes_held 0\n" in text
    (count,) = re.findall(rf"^{re.escape(gone)} (\d+)$", text, re.MULTILINE)
    assert int(count) >= 40


def test_refusals__one_line_and_status_2(
    folder: Path, server: Process, capsys: pytest.CaptureFixture[str]
) -> None:
    host, port = server.address
    run = str(folder / "run")
    for words, told in (
        (
            ["--port", str(port)],
            f"cannot listen on {host}, port {port}: port {port} is taken: give",
        ),
        (["--host", "192.0.2.1"], "192.0.2.1 is no address of this machine: give another --host"),
        (["--host", "no.such.machine.invalid"], "--host no.such.machine.invalid: "),
        (["--host", "a" * 80], "is no name of a machine"),
    ):
        assert main(["serve", run, *words]) == 2
        printed = capsys.readouterr()
        assert printed.out == "" and len(printed.err.splitlines()) == 1
        assert told in printed.err
