"""The champion inside a snapshot: its files, their digests, golden rows, and what a server makes of them."""

import pandas as pd

from turnover_assets.storage import snapshots
from turnover_assets.storage.published_model import GOLDEN
from turnover_assets_tests.factories import Landed


def test_a_snapshot_holds_its_champion(landed: Landed) -> None:
    snapshot = snapshots.current(landed.settings.published_path)
    noted = snapshot.facts["model"]["files"]
    print(noted)
    golden = pd.read_parquet(snapshot.folder / "model" / GOLDEN)
    print(golden.shape)
    print(snapshot.read("feature_ranges").head())
