"""The HTTP contract of the knowledge base, held against a running server.

With BASE_URL set (and TEST_HOST, when the Host header must be another), the tests talk to that server and skip what needs
a server of their own; otherwise they start gunicorn on a free port with data in a temporary folder.
"""

import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import time
import uuid
from pathlib import Path

import httpx
import pytest

APP = Path(__file__).resolve().parents[1]
BASE_URL = os.environ.get("BASE_URL")
HOST = {"host": os.environ["TEST_HOST"]} if "TEST_HOST" in os.environ else {}
DEADLINE_SECONDS = 60

needs_own_server = pytest.mark.skipif(bool(BASE_URL), reason="needs a server that this test can start")


class Server:
    """One gunicorn over a data folder, by the very line that is deployed; it can be stopped and started again."""

    def __init__(self, data: Path, log: Path) -> None:
        self.data, self.log, self.url = data, log, ""
        self._process: subprocess.Popen | None = None

    def launch(self) -> subprocess.Popen:
        with socket.socket() as probe:
            probe.bind(("127.0.0.1", 0))
            port = probe.getsockname()[1]
        self.url = f"http://127.0.0.1:{port}"
        line = json.loads((APP / "railway.json").read_text())["deploy"]["startCommand"]
        words = shlex.split(line.replace("0.0.0.0:$PORT", f"127.0.0.1:{port}"))
        environment = {
            "PATH": os.environ["PATH"],
            "HOME": str(self.log.parent),
            "PYTHONDONTWRITEBYTECODE": "1",
            "DATA_DIR": str(self.data),
            "SYNC_THRESHOLD": "20",
            "TOKEN_DELAY_MS": "0",
        }
        command = [sys.executable, "-m", *words, "--pythonpath", str(APP)]
        with self.log.open("ab") as log:
            self._process = subprocess.Popen(command, cwd=self.log.parent, env=environment, stdout=log, stderr=log)
        return self._process

    def start(self) -> "Server":
        process = self.launch()
        deadline = time.monotonic() + DEADLINE_SECONDS
        while True:
            assert process.poll() is None and time.monotonic() < deadline, self.log.read_text()
            try:
                if httpx.get(f"{self.url}/health").status_code == 200:
                    return self
            except httpx.TransportError:
                time.sleep(0.05)

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            self._process.wait(DEADLINE_SECONDS)

    def kill(self) -> None:
        """Kills gunicorn and its worker, as a crash of the machine would."""
        children = Path(f"/proc/{self._process.pid}/task/{self._process.pid}/children").read_text().split()
        self._process.kill()
        self._process.wait(DEADLINE_SECONDS)
        for child in children:
            os.kill(int(child), 9)


@pytest.fixture
def server(tmp_path):
    server = Server(tmp_path / "data", tmp_path / "log")
    yield server
    server.stop()


@pytest.fixture(scope="module")
def client(tmp_path_factory):
    if BASE_URL:
        with httpx.Client(base_url=BASE_URL, headers=HOST, timeout=DEADLINE_SECONDS) as client:
            yield client
        return
    folder = tmp_path_factory.mktemp("server")
    server = Server(folder / "data", folder / "log").start()
    with httpx.Client(base_url=server.url, timeout=DEADLINE_SECONDS) as client:
        yield client
    server.stop()


def put(client: httpx.Client, *texts: str) -> list[str]:
    answer = client.post("/documents", json={"texts": texts})
    assert answer.status_code == 201, answer.text
    return answer.json()["ids"]


def consistency(url: str) -> dict:
    return httpx.get(f"{url}/consistency", timeout=DEADLINE_SECONDS).json()


def test_health_counts_the_documents(client):
    before = client.get("/health").json()
    put(client, f"counted {uuid.uuid4()}")
    assert before["status"] == "ok"
    assert client.get("/health").json()["documents"] == before["documents"] + 1


def test_the_nearest_document_comes_first(client):
    museum, cats = put(client, "The museum of sailing ships opens at nine.", "Cats sleep on warm roofs all day.")
    found = client.get("/search", params={"q": "when does the museum of ships open", "limit": 2}).json()["documents"]
    assert found[0]["id"] == museum
    assert client.get("/search", params={"q": "sleepy cat on a roof"}).json()["documents"][0]["id"] == cats


def test_the_same_text_is_one_document(client):
    text = f"said twice {uuid.uuid4()}"
    assert put(client, text) == put(client, text)
    assert client.get("/documents").json()["ids"].count(put(client, text)[0]) == 1


def test_index_and_database_agree(client):
    for batch in range(10):
        put(client, *(f"agreed {uuid.uuid4()} {number}" for number in range(15)))
    answer = client.get("/consistency")
    body = answer.json()
    assert answer.status_code == 200 and body["consistent"], body
    assert body["index"] == body["sqlite"] == body["found_by_query"] >= 150 and body["strangers"] == 0


def test_an_answer_is_streamed_with_its_sources(client):
    (source,) = put(client, "Lighthouses are painted in spring by the harbour office.")
    tokens, done = [], None
    with client.stream("GET", "/answer", params={"q": "who paints lighthouses in spring"}) as stream:
        assert stream.headers["content-type"].startswith("text/event-stream")
        event = None
        for line in stream.iter_lines():
            if line.startswith("event: "):
                event = line.removeprefix("event: ")
            elif line.startswith("data: "):
                data = json.loads(line.removeprefix("data: "))
                tokens, done = (tokens, data) if event == "done" else ([*tokens, data["token"]], None)
    assert "harbour office." in "".join(tokens)
    assert source in done["sources"]


def test_what_is_no_text_is_refused(client):
    for bad in ({}, {"texts": []}, {"texts": [" "]}, {"texts": ["x" * 20_000]}, {"texts": ["x"] * 101}):
        assert client.post("/documents", json=bad).status_code == 422, bad
    assert client.get("/search", params={"q": ""}).status_code == 422


@needs_own_server
def test_documents_survive_a_stop_and_a_kill(server):
    server.start()
    with httpx.Client(base_url=server.url) as client:
        ids = put(client, *(f"kept number {number}" for number in range(50)))
    server.stop()
    server.start()
    assert sorted(httpx.get(f"{server.url}/documents").json()["ids"]) == sorted(ids)
    with httpx.Client(base_url=server.url) as client:
        ids += put(client, *(f"kept later {number}" for number in range(25)))
    server.kill()
    server.start()
    assert sorted(httpx.get(f"{server.url}/documents").json()["ids"]) == sorted(ids)
    assert consistency(server.url)["consistent"]


@needs_own_server
def test_halves_from_two_instants_are_told(server, tmp_path):
    database = server.data / "chroma" / "chroma.sqlite3"
    server.start()
    with httpx.Client(base_url=server.url) as client:
        for number in range(50):
            put(client, f"early {number}")
    server.stop()
    shutil.copy(database, tmp_path / "early.sqlite3")
    server.start()
    with httpx.Client(base_url=server.url) as client:
        for number in range(100):
            put(client, f"late {number}")
    server.stop()
    shutil.copy(tmp_path / "early.sqlite3", database)
    server.start()
    told = consistency(server.url)
    assert not told["consistent"] and told["strangers"] > 0 and told["sqlite"] == 50, told


@needs_own_server
def test_a_folder_that_cannot_be_made_ends_the_start(server, tmp_path):
    server.data = tmp_path / "file" / "data"
    (tmp_path / "file").write_text("no folder")
    assert server.launch().wait(DEADLINE_SECONDS) == 3
    assert "set DATA_DIR" in server.log.read_text()
