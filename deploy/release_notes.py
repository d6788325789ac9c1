#!/usr/bin/env python3
"""The notes of a release: its section of CHANGELOG.md, once tag, package and changelog agree on the version.

    deploy/release_notes.py v1.2.3 --output notes.md

Needs Python alone. Ends with 1 and says what does not agree.
"""

import argparse
import re
import sys
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parent.parent


def version_of_package(source: str) -> str:
    """The version that a package's __init__.py names."""
    found = re.search(r'^__version__ = "(.+)"$', source, re.MULTILINE)
    return found[1] if found else ""


def section(changelog: str, version: str) -> str:
    """What the changelog says of a version; empty where it has nothing."""
    parts = re.split(r"^## \[(.+?)\].*$", changelog, flags=re.MULTILINE)
    return dict(zip(parts[1::2], parts[2::2], strict=True)).get(version, "").strip()


def problems(tag: str, package: str, notes: str) -> list[str]:
    """What does not agree."""
    version = tag.removeprefix("v")
    found = []
    if not re.fullmatch(r"v\d+\.\d+\.\d+", tag):
        found.append(f"the tag {tag} is not of the form v1.2.3")
    if version != package:
        found.append(
            f"the tag is {tag}, but the package says {package}: set __version__, and tag that commit"
        )
    if not notes:
        found.append(f"CHANGELOG.md has no text under ## [{version}]: give Unreleased that name and a date")
    return found


def main(arguments: Sequence[str] | None = None) -> int:
    """Write the notes; gives the exit code."""
    parser = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    parser.add_argument("tag", help="the release's tag, such as v1.2.3")
    parser.add_argument("--output", type=Path, required=True, help="file to write the notes to")
    options = parser.parse_args(arguments)
    package = version_of_package((ROOT / "turnover_assets" / "__init__.py").read_text("utf-8"))
    notes = section((ROOT / "CHANGELOG.md").read_text("utf-8"), options.tag.removeprefix("v"))
    if found := problems(options.tag, package, notes):
        sys.stderr.write("".join(f"{problem}\n" for problem in found))
        return 1
    options.output.write_text(f"{notes}\n", "utf-8")
    return 0


if __name__ == "__main__":
    sys.exit(main())
