"""The HTTP contract of the assistant, held against a running server of either edition.

With BASE_URL set (and TEST_HOST, when the Host header must be another), the tests talk to that
server and skip what needs a server of their own. Otherwise they start servers on free ports with
data in temporary folders: gunicorn, or with SERVER set the program that it names, which is the
Rust edition.
"""

import http.server
import json
import os
import shlex
import shutil
import socket
import subprocess
import sys
import threading
import time
from contextlib import contextmanager
from pathlib import Path
from typing import NamedTuple

import httpx
import pytest

APP = Path(__file__).resolve().parents[1]
BASE_URL = os.environ.get("BASE_URL")
# For a server that is reached by an address and chosen by its name.
HOST = {"host": os.environ["TEST_HOST"]} if "TEST_HOST" in os.environ else {}
DEADLINE_SECONDS = 30
INHERITED = ("PATH", "LANG", "LD_LIBRARY_PATH", "TMPDIR")
MESSAGE_MAX_BYTES = 16 * 1024

needs_own_server = pytest.mark.skipif(bool(BASE_URL), reason="needs a server that this test can start")


class Edition(NamedTuple):
    """What differs between the editions, as far as a test can see it."""

    # What a process writes once it serves.
    started: str
    # What describes the API in development. FastAPI brings a second page of its own.
    docs: tuple[str, ...]
    # Whether one server is several processes.
    has_workers: bool
    # The exit status of a server that cannot start: 3. gunicorn says 1 when it hears of two workers at once.
    cannot_boot: tuple[int, ...]


PYTHON = Edition("Application startup complete", ("/docs", "/openapi.json", "/redoc"), True, (3, 1))
RUST = Edition("assistant listens on", ("/docs", "/openapi.json"), False, (3,))
PROGRAM = os.environ.get("SERVER")
EDITION = RUST if PROGRAM else PYTHON


def start_command(port: int, workers: int) -> list[str]:
    """The very line that is deployed, on loopback; the Rust edition is told by HOST and PORT where to listen."""
    if PROGRAM:
        return [str(Path(PROGRAM).resolve())]
    line = json.loads((APP / "railway.json").read_text())["deploy"]["startCommand"]
    words = shlex.split(line.replace("0.0.0.0:$PORT", f"127.0.0.1:{port}"))
    return [sys.executable, "-m", *words, "--workers", str(workers), "--pythonpath", str(APP)]


def free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        return probe.getsockname()[1]


class Server:
    """One server over a data folder; it can be stopped and started again."""

    def __init__(self, folder: Path, workers: int = 2, log: str = "log", **variables: str) -> None:
        self.data = folder / "data"
        self.data.mkdir(exist_ok=True)
        self.log = folder / log
        self.url = ""
        self._folder = folder
        self._workers = workers if EDITION.has_workers else 1
        self._process: subprocess.Popen | None = None
        self._started_before = 0
        inherited = {name: os.environ[name] for name in INHERITED if name in os.environ}
        self._environment = {
            **inherited,
            "HOME": str(folder),
            "PYTHONDONTWRITEBYTECODE": "1",
            "TRACKBED_VOLUME_MOUNT_PATH": str(self.data),
            **variables,
        }

    def launch(self) -> subprocess.Popen:
        port = free_port()
        self.url = f"http://127.0.0.1:{port}"
        with self.log.open("ab") as log:
            self._started_before = self._workers_started()
            self._process = subprocess.Popen(
                start_command(port, self._workers),
                cwd=self._folder,
                env={**self._environment, "HOST": "127.0.0.1", "PORT": str(port)},
                stdout=log,
                stderr=log,
            )
        return self._process

    def start(self) -> "Server":
        self.launch()
        return self.wait_for_start()

    def wait_for_start(self) -> "Server":
        process = self._process

        # Every worker, not only the first to answer: one that starts late makes a new database file.
        def all_workers_started() -> bool:
            return self._workers_started() - self._started_before == self._workers

        wait_until(lambda: all_workers_started() or process.poll() is not None, f"a start: {self.log}")
        assert process.poll() is None, self.log.read_text()
        return self

    def stop(self) -> None:
        if self._process and self._process.poll() is None:
            self._process.terminate()
            try:
                self._process.wait(DEADLINE_SECONDS)
            except subprocess.TimeoutExpired:
                self._process.kill()
                raise

    def _workers_started(self) -> int:
        return self.log.read_text().count(EDITION.started) if self.log.exists() else 0


def wait_until(condition, what: str):
    deadline = time.monotonic() + DEADLINE_SECONDS
    while time.monotonic() < deadline:
        if outcome := condition():
            return outcome
        time.sleep(0.02)
    pytest.fail(f"waited {DEADLINE_SECONDS} seconds for {what}")


@contextmanager
def server(folder: Path, workers: int = 2, **variables: str):
    own = Server(folder, workers, **variables)
    try:
        yield own.start()
    finally:
        own.stop()


@pytest.fixture(scope="module")
def base_url(tmp_path_factory):
    if BASE_URL:
        yield BASE_URL.rstrip("/")
        return
    with server(tmp_path_factory.mktemp("assistant")) as own:
        yield own.url


@pytest.fixture
def client(base_url):
    with httpx.Client(base_url=base_url, timeout=DEADLINE_SECONDS, headers=HOST) as client:
        yield client


def new_thread(client: httpx.Client, title: str = "A thread") -> int:
    response = client.post("/threads", json={"title": title})
    assert response.status_code == 201, response.text
    return response.json()["id"]


def messages_of(client: httpx.Client, thread: int) -> list[dict]:
    return client.get(f"/threads/{thread}").json()["messages"]


def parse_events(lines):
    """Yields (event, data) for each server-sent event."""
    event, data = "message", []
    for line in lines:
        if line.startswith("event:"):
            event = line.removeprefix("event:").strip()
        elif line.startswith("data:"):
            data.append(line.removeprefix("data:").strip())
        elif not line:
            if data:
                yield event, json.loads("\n".join(data))
            event, data = "message", []


def chat(client: httpx.Client, thread: int, message: str) -> list[tuple[str, dict]]:
    with client.stream("POST", f"/threads/{thread}/chat", json={"message": message}) as response:
        assert response.status_code == 200, response.read()
        assert response.headers["content-type"].startswith("text/event-stream")
        return list(parse_events(response.iter_lines()))


def spoken(events: list[tuple[str, dict]]) -> str:
    return "".join(data["token"] for event, data in events if event == "message")


def test_health_says_that_the_database_answers(client):
    response = client.get("/health")
    assert response.status_code == 200
    assert response.json() == {"status": "ok", "database": "ok"}


def test_new_thread_is_returned_and_listed_first(client):
    older = new_thread(client, "Older")
    response = client.post("/threads", json={"title": "Newer"})
    assert response.status_code == 201
    newer = response.json()
    assert set(newer) == {"id", "title", "created_at"}
    assert newer["title"] == "Newer"
    listed = client.get("/threads").json()
    assert [thread["id"] for thread in listed[:2]] == [newer["id"], older]
    assert listed[0] == newer


@pytest.mark.parametrize("title", ["", "   ", "x" * 201, None, 7, "\ud800"])
def test_unfit_title_is_refused(client, title):
    body = json.dumps({"title": title})
    response = client.post("/threads", content=body, headers={"content-type": "application/json"})
    assert response.status_code == 422
    assert response.json()["detail"]


def test_title_of_200_characters_is_accepted(client):
    assert new_thread(client, "ß" * 200)


def test_new_thread_reads_back_without_messages(client):
    thread = client.post("/threads", json={"title": "Empty"}).json()
    response = client.get(f"/threads/{thread['id']}")
    assert response.status_code == 200
    assert response.json() == {**thread, "messages": []}


@pytest.mark.parametrize("unknown", ["999999999", "9" * 40, "no-such-id"])
def test_unknown_thread_is_404_in_json(client, unknown):
    assert client.get(f"/threads/{unknown}").status_code == 404
    response = client.post(f"/threads/{unknown}/chat", json={"message": "Hello?"})
    assert response.status_code == 404
    assert response.json()["detail"]


def test_reply_is_streamed_then_stored(client):
    thread = new_thread(client)
    events = chat(client, thread, "What is a trackbed?")
    assert [event for event, _ in events[:-1]] == ["message"] * (len(events) - 1)
    assert len(events) - 1 >= 10
    last_event, last_data = events[-1]
    assert last_event == "done"
    question, reply = messages_of(client, thread)
    assert set(question) == set(reply) == {"id", "role", "content", "created_at"}
    assert (question["role"], question["content"]) == ("user", "What is a trackbed?")
    assert (reply["role"], reply["content"]) == ("assistant", spoken(events))
    assert last_data == {"message_id": reply["id"]}


def test_built_in_model_repeats_the_message_and_counts_the_earlier_ones(client):
    thread = new_thread(client)
    if "built-in model" not in spoken(chat(client, thread, "One")):
        pytest.skip("another model answers here")
    second = spoken(chat(client, thread, "Two"))
    assert "Two" in second and "2 earlier messages" in second


def test_shortest_message_still_gets_ten_tokens(client):
    assert len(chat(client, new_thread(client), "?")) >= 11


def test_events_arrive_one_by_one(client):
    thread = new_thread(client)
    with client.stream("POST", f"/threads/{thread}/chat", json={"message": "Slowly"}) as response:
        reads = [chunk for chunk in response.iter_raw() if b"data:" in chunk]
    assert len(reads) >= 5, f"only {len(reads)} reads had events: something buffers the stream"
    assert b"token" in reads[0] and b"done" not in reads[0]


def test_own_message_is_stored_before_the_reply_ends(client):
    thread = new_thread(client)
    with client.stream("POST", f"/threads/{thread}/chat", json={"message": "Early"}) as response:
        events = parse_events(response.iter_lines())
        next(events)
        with httpx.Client(base_url=client.base_url, headers=HOST) as onlooker:
            stored = messages_of(onlooker, thread)
    assert [message["content"] for message in stored] == ["Early"]


def test_reply_to_a_client_that_left_is_stored_and_marked(client):
    thread = new_thread(client)
    with client.stream("POST", f"/threads/{thread}/chat", json={"message": "Bye"}) as response:
        events = parse_events(response.iter_lines())
        heard = next(events)[1]["token"] + next(events)[1]["token"]
    wait_until(lambda: len(messages_of(client, thread)) == 2, "the interrupted reply")
    reply = messages_of(client, thread)[1]
    assert reply["interrupted"] is True
    assert reply["content"].startswith(heard)


def test_longest_message_is_accepted_and_a_longer_one_refused(client):
    thread = new_thread(client)
    path = f"/threads/{thread}/chat"
    assert client.post(path, json={"message": "x" * (MESSAGE_MAX_BYTES + 1)}).status_code == 422
    assert client.post(path, json={"message": "€" * (MESSAGE_MAX_BYTES // 3 + 1)}).status_code == 422
    assert client.post(path, json={"message": ""}).status_code == 422
    assert messages_of(client, thread) == []
    assert chat(client, thread, "x" * MESSAGE_MAX_BYTES)[-1][0] == "done"


def test_chat_page_is_one_file(client):
    response = client.get("/")
    assert response.status_code == 200
    assert response.headers["content-type"].startswith("text/html")
    assert "<script src" not in response.text and "<link rel=\"stylesheet\"" not in response.text
    assert response.text == (APP / "static" / "index.html").read_text(), "the editions have the same page"


@needs_own_server
def test_guest_is_signed_in_when_no_provider_is_configured(client):
    assert client.get("/auth/me").json() == {
        "user": {"id": "guest", "name": "Guest", "email": ""},
        "providers": [],
    }
    assert client.get("/auth/google/login").status_code == 404
    assert client.post("/auth/logout").status_code == 204


@needs_own_server
def test_docs_are_shown_in_development_only(client, tmp_path):
    assert {client.get(page).status_code for page in EDITION.docs} == {200}
    with server(tmp_path, **production(tmp_path), AUTH_DISABLED="true") as own:
        assert {httpx.get(own.url + page).status_code for page in EDITION.docs} == {404}
        assert httpx.get(own.url + "/threads").status_code == 200


@needs_own_server
def test_description_names_every_route(client):
    paths = client.get("/openapi.json").json()["paths"]
    assert {(path, method) for path, operations in paths.items() for method in operations} == {
        ("/health", "get"),
        ("/threads", "get"),
        ("/threads", "post"),
        ("/threads/{thread_id}", "get"),
        ("/threads/{thread_id}/chat", "post"),
        ("/auth/me", "get"),
        ("/auth/logout", "post"),
        ("/auth/{provider}/login", "get"),
        ("/auth/{provider}/callback", "get"),
    }


@needs_own_server
def test_signed_out_user_gets_401_when_a_provider_is_configured(tmp_path):
    google = {"GOOGLE_CLIENT_ID": "an-id", "GOOGLE_CLIENT_SECRET": "a-secret"}
    with server(tmp_path, **production(tmp_path), **google) as own:
        assert httpx.get(own.url + "/threads").status_code == 401
        assert httpx.post(own.url + "/threads", json={"title": "Mine"}).status_code == 401
        assert httpx.get(own.url + "/auth/me").json() == {"user": None, "providers": ["google"]}
        assert httpx.get(own.url + "/auth/google/callback?code=x&state=forged").status_code == 401
        assert httpx.get(own.url + "/health").status_code == 200


@needs_own_server
def test_listed_origin_may_call_and_another_may_not(tmp_path):
    with server(tmp_path, FRONTEND_ORIGINS="https://app.example.com, https://b.example.com") as own:
        def allowed(origin: str) -> str | None:
            response = httpx.get(own.url + "/threads", headers={"origin": origin})
            return response.headers.get("access-control-allow-origin")

        assert allowed("https://b.example.com") == "https://b.example.com"
        assert allowed("https://evil.example.com") is None


@needs_own_server
def test_messages_survive_a_restart(tmp_path):
    with server(tmp_path) as own:
        with httpx.Client(base_url=own.url, timeout=DEADLINE_SECONDS) as before:
            thread = new_thread(before, "Kept")
            chat(before, thread, "Remember me")
            kept = before.get(f"/threads/{thread}").json()
        own.stop()
        own.start()
        assert httpx.get(f"{own.url}/threads/{thread}").json() == kept
        assert len(kept["messages"]) == 2


@needs_own_server
def test_reply_under_way_at_shutdown_may_finish(tmp_path):
    with server(tmp_path) as own, httpx.Client(base_url=own.url, timeout=DEADLINE_SECONDS) as client:
        thread = new_thread(client)
        with client.stream("POST", f"/threads/{thread}/chat", json={"message": "Go on"}) as response:
            events = parse_events(response.iter_lines())
            next(events)
            own._process.terminate()
            assert list(events)[-1][0] == "done"


@needs_own_server
def test_reply_of_anthropic_is_passed_on_and_stored(tmp_path):
    with anthropic([delta("Hello"), delta(" wörld\n"), {"type": "message_stop"}]) as (url, asked):
        with server(tmp_path, ANTHROPIC_API_KEY="a-key", ANTHROPIC_BASE_URL=url) as own:
            with httpx.Client(base_url=own.url, timeout=DEADLINE_SECONDS) as client:
                thread = new_thread(client)
                events = chat(client, thread, "One")
                assert [data for _, data in events[:-1]] == [{"token": "Hello"}, {"token": " wörld\n"}]
                assert events[-1][0] == "done"
                assert chat(client, thread, "Two")[-1][0] == "done"
                stored = messages_of(client, thread)
                assert [message["content"] for message in stored[:2]] == ["One", "Hello wörld\n"]
    headers, body = asked[1]
    assert headers["x-api-key"] == "a-key" and headers["anthropic-version"]
    assert body["stream"] is True and body["model"] and body["max_tokens"]
    assert body["messages"] == [
        {"role": "user", "content": "One"},
        {"role": "assistant", "content": "Hello wörld\n"},
        {"role": "user", "content": "Two"},
    ]


@needs_own_server
@pytest.mark.parametrize(
    "end, told",
    [
        ([{"type": "error", "error": {"type": "overloaded_error"}}], "Anthropic broke off: overloaded_error"),
        ([], "Anthropic's reply ended early"),
        (["not json"], "cannot read Anthropic's reply"),
    ],
)
def test_reply_that_anthropic_breaks_off_is_stored_and_marked(tmp_path, end, told):
    with anthropic([delta("Half"), *end]) as (url, _):
        with server(tmp_path, ANTHROPIC_API_KEY="a-key", ANTHROPIC_BASE_URL=url) as own:
            with httpx.Client(base_url=own.url, timeout=DEADLINE_SECONDS) as client:
                thread = new_thread(client)
                (_, token), (event, data) = chat(client, thread, "Go")
                assert token == {"token": "Half"}
                assert event == "error" and data["error"].startswith(told)
                reply = messages_of(client, thread)[1]
                assert reply["id"] == data["message_id"]
                assert reply["content"] == "Half" and reply["interrupted"] is True


@needs_own_server
def test_refusal_of_anthropic_is_told_and_nothing_is_stored(tmp_path):
    with anthropic([], status=529) as (url, _):
        with server(tmp_path, ANTHROPIC_API_KEY="a-key", ANTHROPIC_BASE_URL=url) as own:
            with httpx.Client(base_url=own.url, timeout=DEADLINE_SECONDS) as client:
                thread = new_thread(client)
                told = {"error": "Anthropic answered with status 529", "message_id": None}
                assert chat(client, thread, "Go") == [("error", told)]
                assert len(messages_of(client, thread)) == 1


@needs_own_server
def test_processes_that_start_together_agree_on_a_new_database(tmp_path):
    # Six workers of one gunicorn; the Rust edition is one process with threads, so six of it.
    servers = 1 if EDITION.has_workers else 6
    town = [Server(tmp_path, workers=6, log=f"log-{number}") for number in range(servers)]
    try:
        for own in town:
            own.launch()
        for own in town:
            own.wait_for_start()
            statuses = {httpx.get(own.url + "/health").status_code for _ in range(20)}
            assert statuses == {200}
            log = own.log.read_text()
            assert not crashed(log) and "locked" not in log
    finally:
        for own in town:
            own.stop()


@needs_own_server
@pytest.mark.parametrize("loss", ["file removed", "directory removed", "file replaced"])
def test_health_is_503_when_the_database_is_gone(tmp_path, loss):
    with server(tmp_path) as own:
        database = own.data / "assistant.db"
        if loss == "directory removed":
            shutil.rmtree(own.data)
        elif loss == "file removed":
            database.unlink()
        else:
            copy = own.data / "copy.db"
            shutil.copy(database, copy)
            copy.rename(database)
        for _ in range(6):
            response = httpx.get(own.url + "/health")
            assert response.status_code == 503
            assert response.json()["status"] == "unavailable"
            assert response.json()["database"]


@needs_own_server
def test_missing_volume_is_named_and_ends_the_process(tmp_path):
    own = Server(tmp_path, TRACKBED_VOLUME_MOUNT_PATH=str(tmp_path / "nowhere"))
    assert exit_code(own) in EDITION.cannot_boot
    assert "is the volume mounted?" in own.log.read_text()


@needs_own_server
def test_production_without_settings_names_all_of_them_and_ends(tmp_path):
    own = Server(tmp_path, ENVIRONMENT="production")
    assert exit_code(own) in EDITION.cannot_boot
    log = own.log.read_text()
    for name in ("DATABASE_URL", "SECRET_KEY", "BACKEND_URL", "GOOGLE_CLIENT_ID"):
        assert name in log
    assert not crashed(log)


@needs_own_server
def test_provider_without_its_secret_is_refused(tmp_path):
    own = Server(tmp_path, MICROSOFT_CLIENT_ID="an-id")
    assert exit_code(own) in EDITION.cannot_boot
    assert "MICROSOFT_CLIENT_SECRET" in own.log.read_text()


@needs_own_server
def test_unknown_environment_is_refused_by_name(tmp_path):
    own = Server(tmp_path, ENVIRONMENT="staging", TOKEN_DELAY_MS="soon")
    assert exit_code(own) in EDITION.cannot_boot
    log = own.log.read_text()
    assert "ENVIRONMENT" in log and "TOKEN_DELAY_MS" in log and not crashed(log)


def production(folder: Path) -> dict[str, str]:
    return {
        "ENVIRONMENT": "production",
        "DATABASE_URL": f"sqlite+aiosqlite:///{folder}/data/assistant.db",
        "SECRET_KEY": "k" * 48,
        "BACKEND_URL": "https://assistant.example.com",
    }


def crashed(log: str) -> bool:
    return "Traceback" in log or "panicked at" in log


def exit_code(own: Server) -> int:
    process = own.launch()
    try:
        return process.wait(DEADLINE_SECONDS)
    finally:
        own.stop()


def delta(text: str) -> dict:
    return {"type": "content_block_delta", "delta": {"type": "text_delta", "text": text}}


@contextmanager
def anthropic(events: list, status: int = 200):
    """Something that answers like Anthropic; yields its address, and the headers and bodies it was sent."""
    asked: list[tuple[dict, dict]] = []

    class Answer(http.server.BaseHTTPRequestHandler):
        def do_POST(self) -> None:
            assert self.path == "/v1/messages"
            body = self.rfile.read(int(self.headers["content-length"]))
            asked.append(({name.lower(): value for name, value in self.headers.items()}, json.loads(body)))
            self.send_response(status)
            self.send_header("content-type", "text/event-stream")
            self.end_headers()
            for event in [{"type": "message_start"}, *events]:
                data = event if isinstance(event, str) else json.dumps(event)
                self.wfile.write(f"event: any\ndata: {data}\n\n".encode())

        def log_message(self, *_) -> None:
            pass

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Answer) as listening:
        threading.Thread(target=listening.serve_forever, daemon=True).start()
        try:
            yield f"http://127.0.0.1:{listening.server_port}", asked
        finally:
            listening.shutdown()
