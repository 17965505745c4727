"""Compiles the modules of an environment.

What was compiled for this service before is taken from its cache: a piece there is named by all that it is made of, which is
the interpreter, the path and the text of the module. So an install of other packages compiles no more than is new.

Ends with 1 when some modules have no bytecode, which costs time only, and with more when the install must not be taken.
"""

import errno
import hashlib
import marshal
import os
import sys
from importlib.util import MAGIC_NUMBER, cache_from_source

CREW_MAX = 8
SUM_BYTES = 20
NO_ROOM = 28


def sum_of(*parts):
    hasher = hashlib.blake2b(digest_size=SUM_BYTES)
    for part in parts:
        hasher.update(len(part).to_bytes(8, "little"))
        hasher.update(part)
    return hasher


def write(path, data):
    """Beside, then renamed: a module whose bytecode is cut off cannot be imported."""
    beside = f"{path}.{os.getpid()}"
    try:
        os.makedirs(os.path.dirname(path), exist_ok=True)
        with open(beside, "wb") as file:
            file.write(data)
        os.replace(beside, path)
    except OSError:
        try:
            os.unlink(beside)
        except OSError:
            pass
        raise


def kept(path):
    """A piece of the cache, or none when it is not there or not whole: nobody waits for the disk when it is written."""
    try:
        with open(path, "rb") as file:
            told, code = file.read(SUM_BYTES), file.read()
    except OSError:
        return None
    return code if sum_of(code).digest() == told else None


def compiled(path, text, cache):
    """The code of a module and whether it was there; no code when it is not Python of this version, as in templates."""
    name = sum_of(MAGIC_NUMBER, os.fsencode(path), text).hexdigest()
    place = os.path.join(cache, name[:2], name)
    code = kept(place)
    if code is not None:
        return code, True
    try:
        code = marshal.dumps(compile(text, path, "exec", dont_inherit=True))
    except (SyntaxError, ValueError, OverflowError, RecursionError, MemoryError):
        return None, False
    try:
        write(place, sum_of(code).digest() + code)
    except OSError:
        pass
    return code, False


def work(paths, cache):
    """Writes a .pyc beside each module, with a header as in PEP 552: version, no flags, time and size of the text."""
    made = found = failed = 0
    for path in paths:
        try:
            with open(path, "rb") as file:
                text, status = file.read(), os.fstat(file.fileno())
            code, was_there = compiled(path, text, cache)
            if code is None:
                continue
            header = [0, int(status.st_mtime) & 0xFFFFFFFF, len(text) & 0xFFFFFFFF]
            header = b"".join(number.to_bytes(4, "little") for number in header)
            write(cache_from_source(path), MAGIC_NUMBER + header + code)
            made, found = made + 1, found + was_there
        except OSError as error:
            if error.errno in (errno.ENOSPC, errno.EDQUOT):
                print(f"{path}: {error.strerror}", file=sys.stderr)
                return NO_ROOM, made, found, failed
            failed += 1
    return 0, made, found, failed


def modules(folder):
    for place, _, names in os.walk(folder):
        for name in names:
            path = os.path.join(place, name)
            if name.endswith(".py") and os.path.isfile(path):
                yield path


def shared(paths, cache):
    """The same by several processes. Each tells its result through a pipe; whoever tells none was killed."""
    crew = min(len(os.sched_getaffinity(0)), CREW_MAX)
    others = []
    for number in range(1, crew):
        reader, writer = os.pipe()
        if os.fork() == 0:
            try:
                os.write(writer, " ".join(map(str, work(paths[number::crew], cache))).encode())
            finally:
                os._exit(0)
        os.close(writer)
        others.append(reader)
    results = [work(paths[0::crew], cache)]
    for reader in others:
        with os.fdopen(reader) as told:
            results.append(tuple(map(int, told.read().split())) or (128 + 9, 0, 0, 0))
        os.wait()
    return max(result[0] for result in results), *map(sum, list(zip(*results))[1:])


def main(library, cache):
    if sys.implementation.name != "cpython":
        import compileall

        compileall.compile_dir(library, quiet=2, workers=0)
        return 0
    status, made, found, failed = shared(sorted(modules(library)), cache)
    print(f"Compiled {made - found} modules; the bytecode of {found} was there")
    return status or min(failed, 1)


sys.exit(main(*sys.argv[1:]))
