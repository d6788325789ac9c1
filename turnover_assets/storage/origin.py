"""The origin of a model version: all that is needed to make it again.

What belongs here: which files, ledger, panel, settings and libraries a model was made with, written beside
its files and read back. What does not: making it again (reproduce.py).

    origin/landed.json        number and SHA-256 of each accepted file, in the order of landing
    origin/adjustments.toml   the ledger, byte for byte; empty where there was none
    origin/panel.json         the panel
    origin/made_with.json     settings, libraries, and the score of each candidate
"""

import json
import platform
from collections.abc import Mapping
from dataclasses import dataclass, field
from importlib import import_module
from pathlib import Path
from typing import Any

import duckdb

from turnover_assets.panel import PanelSpec
from turnover_assets.storage import manifest

LEDGER = "adjustments.toml"
# Whose releases may change a number; imported by who asks, since those of models take seconds.
LIBRARIES = ("duckdb", "holidays", "numpy", "pandas", "sklearn", "skops", "xgboost")


@dataclass(frozen=True)
class Origin:
    """What a model version was made from.

    Attributes:
        landed: Number and SHA-256 of each accepted file, in the order of landing.
        ledger: The ledger's content.
        panel: The panel.
        settings: The settings that change numbers, by name.
        libraries: Releases of the interpreter and of libraries, and the machine's kind, by name.
        scores: WAPE of each candidate that was compared, best first.
        tuned: Parameters that a search had found, by candidate.
    """

    landed: tuple[tuple[int, str], ...]
    ledger: bytes
    panel: PanelSpec
    settings: Mapping[str, Any]
    libraries: Mapping[str, str]
    scores: Mapping[str, float]
    tuned: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)

    def save(self, folder: Path) -> None:
        """Write everything into a folder, which is made."""
        folder.mkdir()
        (folder / "landed.json").write_text(json.dumps(self.landed), "utf-8")
        (folder / LEDGER).write_bytes(self.ledger)
        (folder / "panel.json").write_text(self.panel.model_dump_json(), "utf-8")
        made_with = {
            "settings": dict(self.settings),
            "libraries": dict(self.libraries),
            "scores": dict(self.scores),
            "tuned": dict(self.tuned),
        }
        (folder / "made_with.json").write_text(json.dumps(made_with, indent=2), "utf-8")

    @classmethod
    def load(cls, folder: Path) -> "Origin":
        """Read what save wrote."""
        return cls(
            landed=tuple(
                (no, digest) for no, digest in json.loads((folder / "landed.json").read_text("utf-8"))
            ),
            ledger=(folder / LEDGER).read_bytes(),
            panel=PanelSpec.model_validate_json((folder / "panel.json").read_text("utf-8")),
            **json.loads((folder / "made_with.json").read_text("utf-8")),
        )


def library_versions() -> dict[str, str]:
    """Releases of whatever may change a number, and the kind of machine."""
    libraries = {name: str(import_module(name).__version__) for name in LIBRARIES}
    return {
        "machine": f"{platform.system()} {platform.machine()}",
        "python": platform.python_version(),
        **libraries,
    }


def landed_files(
    con: duckdb.DuckDBPyConnection, panel: PanelSpec, version: str
) -> tuple[tuple[int, str], ...]:
    """Number and SHA-256 of the accepted files that make up a landed version, in the order of landing.

    What has landed since is left out; nothing is found where the version is none of this warehouse's.
    """
    found = [record for record in manifest.records(con, panel) if record.status == "accepted"]
    while found and manifest.landed_version(found, panel) != version:
        found.pop()
    numbers = dict(con.execute(f"SELECT digest, file_no FROM {manifest.FILES}").fetchall())
    return tuple((int(numbers[record.digest]), record.digest) for record in found)
