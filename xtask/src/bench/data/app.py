"""A backend that writes to its volume all the while and knows how long it was kept from it. On the standard library alone."""

import heapq
import json
import os
import random
import signal
import sqlite3
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

DATA = Path(os.environ["TRACKBED_VOLUME_MOUNT_PATH"])
SIZES = json.loads(Path(__file__).with_name("sizes.json").read_text())
DATABASE_MB, BINARY_MB, SMALL_FILES = (SIZES[name] for name in ("database_mb", "binary_mb", "small_files"))
PAGE = 4096
# One row to a page, so that a share of the rows is a share of the pages.
PAYLOAD = 3000
LONGEST_GAPS = 20
ROWS = DATABASE_MB * 1024 * 1024 // PAGE
MEGABYTE = 1024 * 1024


def connect():
    connection = sqlite3.connect(DATA / "app.db", timeout=30, isolation_level=None)
    connection.execute("PRAGMA journal_mode=WAL")
    connection.execute("PRAGMA synchronous=NORMAL")
    return connection


def fill():
    """Gives every page of the database and every file a content that it never had."""
    connection = connect()
    connection.execute("CREATE TABLE IF NOT EXISTS pages (id INTEGER PRIMARY KEY, payload BLOB NOT NULL)")
    connection.execute("CREATE TABLE IF NOT EXISTS inserts (id INTEGER PRIMARY KEY, text TEXT NOT NULL)")
    for start in range(0, ROWS, 5000):
        rows = ((number, os.urandom(PAYLOAD)) for number in range(start, min(start + 5000, ROWS)))
        connection.execute("BEGIN")
        connection.executemany("INSERT OR REPLACE INTO pages VALUES (?, ?)", rows)
        connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    with open(DATA / "binary.bin", "wb") as file:
        for _ in range(BINARY_MB):
            file.write(os.urandom(MEGABYTE))
    (DATA / "small").mkdir(exist_ok=True)
    for number in range(SMALL_FILES):
        (DATA / "small" / f"{number}.json").write_text(json.dumps({"number": number, "salt": os.urandom(200).hex()}))
    os.sync()


def touch(per_mille):
    """Changes a share of the pages of the database and of the binary, spread at random."""
    chosen = random.sample(range(ROWS), ROWS * per_mille // 1000)
    connection = connect()
    connection.execute("BEGIN")
    connection.executemany("UPDATE pages SET payload = ? WHERE id = ?", ((os.urandom(PAYLOAD), one) for one in chosen))
    connection.execute("COMMIT")
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()
    pages = BINARY_MB * MEGABYTE // PAGE
    with open(DATA / "binary.bin", "r+b") as file:
        for page in random.sample(range(pages), pages * per_mille // 1000):
            file.seek(page * PAGE)
            file.write(os.urandom(PAGE))
    os.sync()


class Writer:
    """Commits row after row, at a pace, and measures the time between two commits by the machine's monotonic clock."""

    def __init__(self):
        self.per_second = 0  # 0: rests; negative: as fast as it can
        self.lock = threading.Lock()
        self.begin()
        threading.Thread(target=self.write, daemon=True).start()

    def begin(self):
        self.began, self.commits, self.gaps = time.monotonic(), 0, []

    def window(self):
        """Returns what happened since the last call, the gaps in milliseconds, the largest first."""
        with self.lock:
            seconds = time.monotonic() - self.began
            told = {"seconds": seconds, "commits": self.commits, "gaps_ms": sorted(self.gaps, reverse=True)}
            self.begin()
        return told

    def write(self):
        connection = connect()
        number, last, rested = 0, time.monotonic(), True
        while True:
            if not self.per_second:
                rested = True
                time.sleep(0.02)
                continue
            if self.per_second > 0:
                wait = last + 1 / self.per_second - time.monotonic()
                if wait > 0:
                    time.sleep(wait)
            number += 1
            connection.execute("INSERT INTO inserts (text) VALUES (?)", [f"row {number} of a writer that never rests"])
            now = time.monotonic()
            with self.lock:
                self.commits += 1
                if not rested:
                    gap = (now - last) * 1000
                    if len(self.gaps) < LONGEST_GAPS:
                        heapq.heappush(self.gaps, gap)
                    else:
                        heapq.heappushpop(self.gaps, gap)
            last, rested = now, False


class Handler(BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"

    def log_message(self, *arguments):
        pass

    def do_GET(self):
        path, _, query = self.path.partition("?")
        if path == "/health":
            return self.answer("ok")
        if path == "/window":
            return self.answer(WRITER.window())
        if path == "/pace":
            WRITER.per_second = int(query)
            return self.answer("paced")
        if path == "/fill":
            return self.answer(fill() or "filled")
        if path == "/touch":
            return self.answer(touch(int(query)) or "touched")
        return self.answer("no such path", 404)

    def answer(self, value, status=200):
        body = json.dumps(value).encode()
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)


signal.signal(signal.SIGTERM, lambda *_: os._exit(0))
if not (DATA / "filled").exists():
    fill()
    (DATA / "filled").touch()
WRITER = Writer()
ThreadingHTTPServer(("0.0.0.0", int(os.environ["PORT"])), Handler).serve_forever()
