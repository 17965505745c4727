"""Fetches the request corpora of other servers and writes them as one list of cases: `corpora.py FOLDER`.

Nothing of theirs is kept in this repository and nothing of theirs is run: archives come from PyPI, pinned by version
and digest, and are only read. What a case expects is taken from the suite; what is changed about a case is this:
a request without `Host` gets one, because a proxy needs it to know where to, and a host that is no host
(`0.0.0.0=5000`) becomes `a.test`, and a malformed head that stops in the middle gets its end, because a server may
wait for it before it looks. Cases that test a setting or a limit of that server, or that are not about whole requests,
are left out, each with a reason.
"""

import ast
import hashlib
import json
import os
import re
import subprocess
import sys
import tarfile

SUITES = {
    "gunicorn": ("gunicorn", "27.0.1", "b1514965361c8b7e8107a80aa2a92636878df1ccfac6dd204a676426e04d9e3e"),
    "llhttp": ("aiohttp", "3.14.5", "5558a7f5a05af9ecf744af91e5baefc436f93c9333e656c27ec253f9a6bbe178"),
}
# Exit code that the tests take for "not tested here".
CANNOT_FETCH = 3
HOST = b"a.test"
NO_HOST = b"0.0.0.0=5000"


def fetch(folder, package, version, digest):
    """Returns the path of an archive, downloaded by pip unless it is there; pip checks the digest, and so do we."""
    path = os.path.join(folder, f"{package}-{version}.tar.gz")
    if not os.path.exists(path):
        wanted = os.path.join(folder, f"{package}.txt")
        with open(wanted, "w") as file:
            file.write(f"{package}=={version} --hash=sha256:{digest}\n")
        command = [sys.executable, "-m", "pip", "download", "--quiet", "--disable-pip-version-check", "--no-deps"]
        command += ["--no-binary", package, "--require-hashes", "--dest", folder, "--requirement", wanted]
        if subprocess.run(command, stdin=subprocess.DEVNULL).returncode:
            sys.exit(CANNOT_FETCH)
    with open(path, "rb") as file:
        found = hashlib.sha256(file.read()).hexdigest()
    if found != digest:
        raise SystemExit(f"{path} has another digest: {found}")
    return path


def files_of(archive, pattern):
    """Yields name (without the archive's top folder) and bytes of matching files."""
    with tarfile.open(archive) as tar:
        for member in tar.getmembers():
            name = member.name.partition("/")[2]
            if member.isfile() and re.fullmatch(pattern, name):
                yield name, tar.extractfile(member).read()


def has_host(head):
    return re.search(rb"(?im)^host[ \t]*:", head) is not None


def with_host(raw, starts):
    """Adds a Host after the request line of each request that begins at one of `starts` and has none."""
    for start in sorted(starts, reverse=True):
        line_end = raw.find(b"\r\n", start)
        if line_end < 0:
            continue
        head_end = raw.find(b"\r\n\r\n", line_end)
        head = raw[line_end : head_end if head_end >= 0 else len(raw)]
        if not has_host(head):
            raw = raw[: line_end + 2] + b"Host: " + HOST + b"\r\n" + raw[line_end + 2 :]
    return raw.replace(NO_HOST, HOST)


def case(name, raw, ending, requests):
    if ending == "error" and not requests and b"\r\n\r\n" not in raw:
        raw += b"\r\n\r\n"
    return {"name": name, "raw": raw.hex(), "ending": ending, "requests": requests}


def request(method, target, headers, body):
    headers = [[name.lower(), value.replace(NO_HOST.decode(), HOST.decode())] for name, value in headers]
    return {"method": method, "target": target, "headers": headers, "body": body.hex()}


# gunicorn: tests/requests/{valid,invalid}/NAME.http beside NAME.py


def gunicorn_bytes(text):
    text = text.replace(b"\n", b"")
    for written, meant in ((b"\\r\\n", b"\r\n"), (b"\\0", b"\0"), (b"\\n", b"\n"), (b"\\t", b"\t")):
        text = text.replace(written, meant)
    return re.sub(rb"\\x([0-9A-Fa-f]{2})", lambda match: bytes([int(match[1], 16)]), text)


class Sidecar:
    """What a case's Python file says, read without running it."""

    def __init__(self, text):
        self.values, self.settings = {}, []
        for node in ast.parse(text).body:
            if isinstance(node, ast.Assign):
                self.values[node.targets[0].id] = node.value
            call = getattr(node, "value", None)
            if isinstance(call, ast.Call) and getattr(call.func, "attr", "") == "set":
                self.settings.append(ast.literal_eval(call.args[0]))

    def read(self, node):
        if isinstance(node, ast.Name):
            return self.read(self.values[node.id])
        if isinstance(node, ast.Call) and getattr(node.func, "id", "") == "uri":
            return ast.literal_eval(node.args[0])
        if isinstance(node, ast.List):
            return [self.read(item) for item in node.elts]
        if isinstance(node, ast.Dict):
            return {ast.literal_eval(key): self.read(value) for key, value in zip(node.keys, node.values)}
        return ast.literal_eval(node)


LIMITS = ("LimitRequestLine", "LimitRequestHeaders")
UNFINISHED = ("NoMoreData", "ChunkMissingTerminator")


def gunicorn(archive):
    files = dict(files_of(archive, r"tests/requests/(valid|invalid)/[^/]+\.(http|py)"))
    cases, left_out = [], []
    for path in sorted(files):
        stem, _, kind = path.rpartition(".")
        if kind == "py":
            continue
        name = stem.removeprefix("tests/requests/")
        raw, sidecar = gunicorn_bytes(files[path]), Sidecar(files[f"{stem}.py"].decode())
        wanted = sidecar.values["request"]
        error = wanted.id if isinstance(wanted, ast.Name) and name.startswith("invalid") else None
        if sidecar.settings:
            left_out.append([name, f"needs gunicorn's {', '.join(sidecar.settings)}"])
        elif error in LIMITS:
            left_out.append([name, "a size limit of gunicorn's"])
        elif error:
            start = len(raw) - len(raw.lstrip(b"\r\n"))
            ending = "incomplete" if error in UNFINISHED else "error"
            cases.append(case(name, with_host(raw, [start]), ending, []))
        else:
            try:
                expected = sidecar.read(wanted)
            except ValueError:
                left_out.append([name, "its expectation is a program"])
                continue
            expected = expected if isinstance(expected, list) else [expected]
            starts, requests, at = [], [], 0
            for one in expected:
                line = f"{one['method']} {one['uri']} HTTP".encode("latin-1")
                at = raw.index(line, at)
                starts.append(at)
                at += len(line)
                # A proxy's target may hold its headers by another name; bodies are the suite's own bytes.
                body = one["body"] if isinstance(one["body"], bytes) else one["body"].encode()
                requests.append(request(one["method"], one["uri"], one["headers"], body))
            cases.append(case(name, with_host(raw, starts), "clean", requests))
    return cases, left_out


# llhttp: test/request/*.md, input and the parser's log of events, in the archive of a package that vendors it


def llhttp_bytes(text):
    text = text.removesuffix("\n")
    text = re.sub(r"\\(\r\n|\r|\n)", "", text)
    text = re.sub(r"\r\n|\r|\n", "\r\n", text)
    for written, meant in (("\\r", "\r"), ("\\n", "\n"), ("\\t", "\t"), ("\\f", "\f")):
        text = text.replace(written, meant)
    text = re.sub(r"\\x([0-9a-fA-F]+)", lambda match: chr(int(match[1], 16)), text)
    text = re.sub(r"\\([0-7]{1,3})", lambda match: chr(int(match[1], 8)), text)
    return text.encode()


SPAN = re.compile(r"/?off=(\d+) len=(\d+) span\[(\w+)\]")
# Not errors: the parser hands over to another protocol.
HAND_OVER = re.compile(r"error code=(21|22|23) ")


def llhttp_events(raw, log):
    """Returns the messages of a log: where each begins, what it is, and whether it was complete; and the ending."""
    messages, ending = [], "clean"
    for line in log.splitlines():
        span = SPAN.match(line)
        if "message begin" in line:
            messages.append({"headers": [], "body": b"", "spans": {}, "done": False, "head": True})
        elif span and messages:
            at, length, kind = int(span[1]), int(span[2]), span[3]
            text, message = raw[at : at + length], messages[-1]
            message.setdefault("start", at)
            if kind == "body":
                message["body"] += text
            elif kind == "header_field" and message["head"]:
                message["headers"].append([text, b""])
            elif kind == "header_value" and message["head"]:
                message["headers"][-1][1] += text
            else:
                message["spans"][kind] = message["spans"].get(kind, b"") + text
        elif "headers complete" in line and messages:
            message = messages[-1]
            message["head"] = False
        elif "message complete" in line:
            messages[-1]["done"] = True
        elif HAND_OVER.search(line):
            return messages, "upgrade"
        elif "error code=" in line:
            ending = "error"
    if ending == "clean" and messages and not messages[-1]["done"]:
        ending = "incomplete"
    return messages, ending


def llhttp(archive):
    cases, left_out, seen = [], [], {}
    block = re.compile(
        r"^#{2,3} (?P<title>[^\n]+)$"
        r"|<!-- ?meta=(?P<meta>\{[^\n]*?\}) ?-->\s*```http\n(?P<input>(?:(?!```).)*)```"
        r"(?:(?!```).)*```log\n(?P<log>(?:(?!```).)*)```",
        re.S | re.M,
    )
    for path, text in sorted(files_of(archive, r"vendor/llhttp/test/request/[^/]+\.md")):
        topic, title = path.rpartition("/")[2].removesuffix(".md"), ""
        for found in block.finditer(text.decode()):
            if found["title"]:
                title = found["title"]
                continue
            name = f"{topic}: {title}"
            number = seen[name] = seen.get(name, 0) + 1
            name += f" ({number})" if number > 1 else ""
            meta = json.loads(found["meta"])
            if meta.get("type") not in ("request", "request-finish") or {"pause", "skipBody"} & meta.keys():
                left_out.append([name, "a setting of the parser"])
                continue
            if "${" in found["input"]:
                left_out.append([name, "its input is a program"])
                continue
            raw = llhttp_bytes(found["input"])
            messages, ending = llhttp_events(raw, found["log"])
            if ending == "upgrade":
                left_out.append([name, "hands over to another protocol"])
                continue
            requests = []
            for message in messages:
                if not message["done"]:
                    continue
                method, target = (message["spans"].get(kind, b"").decode("latin-1") for kind in ("method", "url"))
                headers = [[one.decode("latin-1") for one in pair] for pair in message["headers"]]
                requests.append(request(method, target, headers, message["body"]))
            starts = [message["start"] for message in messages if "start" in message]
            cases.append(case(name, with_host(raw, starts), ending, requests))
    return cases, left_out


def main():
    folder = sys.argv[1]
    os.makedirs(folder, exist_ok=True)
    suites = []
    for suite, read in (("gunicorn", gunicorn), ("llhttp", llhttp)):
        package, version, digest = SUITES[suite]
        cases, left_out = read(fetch(folder, package, version, digest))
        source = f"{package} {version}"
        suites.append({"suite": suite, "source": source, "cases": cases, "left_out": left_out})
    json.dump(suites, sys.stdout)


main()
