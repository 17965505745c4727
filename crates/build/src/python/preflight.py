"""Looks whether a start command can find what it names. Runs nothing of the app: modules are found, not imported."""

import ast
import json
import os
import shutil
import sys
import tokenize

ASK = json.loads(os.environ.pop("TRACKBED_PREFLIGHT_ASK"))
DYNAMIC = ("globals(", "exec(", "setattr(", "__getattr__", "vars(", "import *")
BASE = os.getcwd()
problems, looked = [], []


def find(name, path):
    """As importlib.util.find_spec, but without importing the packages above."""
    for finder in sys.meta_path:
        spec = getattr(finder, "find_spec", None)
        spec = spec and spec(name, path)
        if spec:
            return spec
    return None


def module(name, places):
    """Finds a module by its dotted name. Returns its spec, or none after telling what is missing."""
    path, found = None, None
    parts = name.split(".")
    for number in range(len(parts)):
        part = ".".join(parts[: number + 1])
        found = find(part, path)
        if found is None:
            where = "the dependencies and " + " and ".join(places) if number == 0 else parts[number - 1] + "/"
            problems.append({"kind": "module", "what": name, "part": part, "where": where, "near": near(places)})
            return None
        path = found.submodule_search_locations
        if path is None and number + 1 < len(parts):
            problems.append({"kind": "package", "what": name, "part": part, "where": found.origin or ""})
            return None
    return found


def near(places):
    """The modules that lie where the app is looked for, and one folder below."""
    names = []
    for place in places:
        for folder, prefix in [(place, "")] + [
            (os.path.join(place, entry), entry + ".") for entry in listed(place) if entry[:1] not in "._"
        ]:
            if prefix and not os.path.isdir(folder):
                continue
            names += [prefix + entry[:-3] for entry in listed(folder) if entry.endswith(".py")]
    return [name for name in sorted(set(names)) if "__" not in name and "test" not in name][:8]


def listed(folder):
    try:
        return os.listdir(folder)
    except OSError:
        return []


def read(file):
    """Parses a file. Returns its tree and text, or none."""
    try:
        with tokenize.open(file) as source:
            text = source.read()
        return ast.parse(text, file), text
    except SyntaxError as error:
        line = (error.text or "").strip()
        problems.append({"kind": "syntax", "file": short(file), "line": error.lineno, "text": line, "why": error.msg})
    except (OSError, ValueError, RecursionError, MemoryError):
        pass
    return None


def short(file):
    return os.path.relpath(file, BASE) if file.startswith(BASE + "/") else file


def imports(tree, text, file, places):
    """Tells of packages that the file imports unconditionally and that are nowhere."""
    if "sys.path" in text or "sys.meta_path" in text:
        return
    for node in tree.body:
        if isinstance(node, ast.Import):
            names = [alias.name for alias in node.names]
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names = [node.module]
        else:
            continue
        for name in names:
            top = name.split(".")[0]
            if top not in sys.modules and find(top, None) is None:
                problems.append({"kind": "import", "what": top, "file": short(file), "line": node.lineno})


def binds(tree, name):
    for node in ast.walk(tree):
        if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store) and node.id == name:
            return True
        if isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef, ast.ClassDef)) and node.name == name:
            return True
        if isinstance(node, ast.alias) and (node.asname or node.name.split(".")[0]) == name:
            return True
        if isinstance(node, ast.Global) and name in node.names:
            return True
    return False


def target(ask, places):
    name, _, call = ask["target"].partition(":")
    spec = module(name, places)
    file = spec and (spec.origin or "")
    if not file or not file.endswith(".py"):
        return
    known = read(file)
    if known is None:
        return
    tree, text = known
    looked.append(ask["target"])
    imports(tree, text, file, places)
    attribute = call.split("(")[0].split(".")[0].strip() or ask.get("default", "")
    if not attribute or not attribute.isidentifier() or any(sign in text for sign in DYNAMIC):
        return
    if not binds(tree, attribute) and find(name + "." + attribute, spec.submodule_search_locations) is None:
        names = [
            node.id
            for top in tree.body
            if isinstance(top, (ast.Assign, ast.AnnAssign))
            for node in ast.walk(top)
            if isinstance(node, ast.Name) and isinstance(node.ctx, ast.Store)
        ]
        problems.append({"kind": "attribute", "what": attribute, "file": short(file), "near": names[:8]})


def configured(ask, folder):
    """Whether a configuration file of the server may move the place that modules are looked for in."""
    texts = [os.environ.get("GUNICORN_CMD_ARGS", "")]
    for name in ask.get("configs", []):
        try:
            with open(os.path.join(folder, name), encoding="utf-8", errors="replace") as config:
                texts.append(config.read())
        except OSError:
            pass
    return any(word in text for text in texts for word in ("chdir", "pythonpath", "sys.path"))


def main():
    known = [place for place in sys.path if place]
    for number, ask in enumerate(ASK):
        folder = os.path.normpath(os.path.join(BASE, ask["folder"]))
        if not os.path.isdir(folder):
            if number == 0:
                problems.append({"kind": "folder", "what": ask["folder"]})
            return
        os.chdir(folder)
        program = ask["program"]
        if "/" in program:
            if number == 0 and not os.path.exists(program):
                problems.append({"kind": "program", "what": program})
        elif shutil.which(program) is None:
            problems.append({"kind": "program", "what": program})
        else:
            looked.append(program)
        if configured(ask, folder):
            continue
        places = [os.path.normpath(os.path.join(folder, place)) for place in ask["places"]] or [folder]
        sys.path[:] = places + known
        if ask.get("module"):
            module(ask["module"], places)
        if ask.get("file") and number == 0:
            file = os.path.join(folder, ask["file"])
            if not os.path.exists(file):
                problems.append({"kind": "file", "what": ask["file"], "near": near([folder])})
            elif file.endswith(".py"):
                sys.path[:] = [os.path.dirname(file)] + known
                tree = read(file)
                if tree:
                    looked.append(ask["file"])
                    imports(*tree, file, places)
        if ask.get("target"):
            target(ask, places)


main()
print("TRACKBED-PREFLIGHT " + json.dumps({
    "python": ".".join(str(part) for part in sys.version_info[:3]), "problems": problems, "looked": looked,
}))
