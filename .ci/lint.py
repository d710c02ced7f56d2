"""Keeps two things true: what a target imports is what the manifest declares for it, and no table of a page is cut in two
by a blank line. Prints what is wrong, one fault a line, and exits with 1 if anything is."""

import json
import pathlib
import re
import subprocess
import sys

# Modules that come with the compiler.
PLATFORM = {"Dispatch", "Foundation", "Glibc", "Synchronization", "Testing"}
IMPORT = re.compile(
    r"^(?:@\w+(?:\(\w+\))? )*(?:public |package |internal |private )?import "
    r"(?:struct |class |enum |protocol |typealias |func |let |var )?(\w+)", re.M)


def names(dependency):
    """The modules that a declared dependency brings, by the forms that the manifest has for it."""
    for form in ("byName", "target", "product"):
        if form in dependency:
            return dependency[form][0]
    return None  # a plugin


def imports():
    manifest = json.loads(subprocess.run(
        ["swift", "package", "dump-package"], check=True, capture_output=True, text=True).stdout)
    kinds = {target["name"]: target["type"] for target in manifest["targets"]}
    for target in manifest["targets"]:
        if target["type"] not in ("regular", "executable", "test"):
            continue
        folder = pathlib.Path("Tests" if target["type"] == "test" else "Sources")
        folder = pathlib.Path(target.get("path") or folder / target["name"])
        sources = sorted(folder.rglob("*.swift"))
        if not sources:
            continue  # in C
        used = {name for source in sources for name in IMPORT.findall(source.read_text())} - PLATFORM
        declared = {names(dependency) for dependency in target["dependencies"]} - {None}
        # Programs are declared for the tests that run them.
        for name in sorted(declared - used):
            if not (target["type"] == "test" and kinds.get(name) == "executable"):
                yield f"Package.swift: {target['name']} declares {name} and imports it nowhere"
        for name in sorted(used - declared - {target["name"]}):
            yield f"Package.swift: {target['name']} imports {name} and does not declare it"


def tables():
    pages = subprocess.run(["git", "ls-files", "*.md"], check=True, capture_output=True, text=True).stdout.split()
    for page in pages:
        lines = pathlib.Path(page).read_text().split("\n")
        for number in range(2, len(lines)):
            above, blank, row = lines[number - 2:number + 1]
            below = lines[number + 1] if number + 1 < len(lines) else ""
            begins = re.match(r"^\|[ :|-]+\|$", below)
            if above.startswith("|") and not blank.strip() and row.startswith("|") and not begins:
                yield f"{page}:{number}: a blank line cuts a table"


faults = list(imports()) + list(tables())
for fault in faults:
    print(fault)
sys.exit(1 if faults else 0)
