"""Checks of places beyond the home: object stores and the database, where the settings name any.

What belongs here: whether they can be reached, and hold what is published. What does not: whether they can be
written, which only the job `deliver` tells, since a check changes nothing.
"""

from collections.abc import Iterator

from turnover_assets.doctor import Patient, Told, check
from turnover_assets.storage.object_store import ObjectStore
from turnover_assets.storage.postgres_copy import Database
from turnover_assets.storage.snapshot_mirror import mirrored_name
from turnover_assets.storage.snapshots import find_current

LATER = "`turnover run` or the delivery sensor brings it there; see the newest run of the job `deliver`."


@check("landing store")
def landing(patient: Patient) -> Iterator[Told]:
    """The object store that files land from can be listed."""
    if url := patient.settings.landing_url:
        yield "ok", f"{url} holds {len(ObjectStore(url).objects()):,} objects"


@check("published store")
def published(patient: Patient) -> Iterator[Told]:
    """The object store that snapshots are copied to can be read, and holds what is published."""
    if url := patient.settings.publish_url:
        yield _compared(patient, url, mirrored_name(url))


@check("followed store")
def followed(patient: Patient) -> Iterator[Told]:
    """The object store that serving follows can be read, and holds a snapshot."""
    if url := patient.settings.snapshots_url:
        if name := mirrored_name(url):
            yield "ok", f"{url}: {name}"
        else:
            remedy = "Let the home run that publishes there (TURNOVER_PUBLISH_URL), or correct the address."
            yield "problem", f"nothing was published in {url} yet", remedy


@check("model store")
def models(patient: Patient) -> Iterator[Told]:
    """The object store that keeps the files of models can be listed."""
    if url := patient.settings.artifacts_url:
        yield "ok", f"{url} holds the files of {len(ObjectStore(url).folders()):,} runs"


@check("postgres copy")
def postgres(patient: Patient) -> Iterator[Told]:
    """The database can be reached, and holds what is published."""
    if url := patient.settings.postgres_url:
        database = Database(url, patient.settings.postgres_schema)
        yield _compared(patient, database.place, database.current())


def _compared(patient: Patient, place: str, there: str | None) -> Told:
    """What a place holds, beside what is published here."""
    here = find_current(patient.settings.published_path)
    told = f"{place} holds {there or 'nothing yet'}"
    if here is None or there == here.name:
        return "ok", told
    return "warning", f"{told}, and not yet {here.name}", LATER
