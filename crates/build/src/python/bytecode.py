"""Compiles the modules of an environment.

What was compiled for this service before is taken from its cache: a piece there is named by all that it is made of, which is
the interpreter, the path and the text of the module. So an install of other packages compiles no more than is new.
"""

import hashlib
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source

CREW_MAX = 8
SUM_BYTES = 20


def sum_of(*parts):
    hasher = hashlib.blake2b(digest_size=SUM_BYTES)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher


def kept(path):
    """A piece of the cache, or none when it is not there or not whole: nobody waits for the disk when it is written."""
    try:
        with open(path, "rb") as file:
            told, code = file.read(SUM_BYTES), file.read()
    except OSError:
        return None
    return code if sum_of(code).digest() == told else None


def keep(path, code):
    beside = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(beside, "wb") as file:
            file.write(sum_of(code).digest() + code)
        os.rename(beside, path)
    except OSError:
        pass


def compiled(path, text, cache):
    """The code of a module and whether it was there; no code when it is not Python of this version, as in templates."""
    name = sum_of(MAGIC_NUMBER, os.fsencode(path), text).hexdigest()
    place = os.path.join(cache, name[:2], name)
    code = kept(place)
    if code is not None:
        return code, True
    try:
        code = marshal.dumps(compile(text, path, "exec", dont_inherit=True))
    except (SyntaxError, ValueError, OverflowError, RecursionError):
        return None, False
    keep(place, code)
    return code, False


def work(paths, cache):
    """Writes a .pyc beside each module, with a header as in PEP 552: version, no flags, time and size of the text."""
    made = found = 0
    for path in paths:
        with open(path, "rb") as file:
            text, status = file.read(), os.fstat(file.fileno())
        code, was_there = compiled(path, text, cache)
        if code is None:
            continue
        target = cache_from_source(path)
        os.makedirs(os.path.dirname(target), exist_ok=True)
        header = [0, int(status.st_mtime) & 0xFFFFFFFF, len(text) & 0xFFFFFFFF]
        with open(target, "wb") as file:
            file.write(MAGIC_NUMBER + b"".join(number.to_bytes(4, "little") for number in header) + code)
        made, found = made + 1, found + was_there
    return made, found


def modules(folder):
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and os.path.isfile(path):
                yield path


def shared(paths, cache):
    """The same by several processes. Each tells its counts through a pipe."""
    crew = min(len(os.sched_getaffinity(0)), CREW_MAX)
    others = []
    for number in range(1, crew):
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                counts = work(paths[number::crew], cache)
                os.write(writer, "{} {}".format(*counts).encode())
            finally:
                os._exit(0)
        os.close(writer)
        others.append(reader)
    counts = [work(paths[0::crew], cache)]
    for reader in others:
        with os.fdopen(reader) as told:
            made, found = map(int, told.read().split())
            counts.append((made, found))
        os.wait()
    return map(sum, zip(*counts))


def main(library, cache):
    if sys.implementation.name != "cpython":
        import compileall

        compileall.compile_dir(library, quiet=2, workers=0)
        return
    made, found = shared(sorted(modules(library)), cache)
    print(f"Compiled {made - found} modules; the bytecode of {found} was there")


main(*sys.argv[1:])
