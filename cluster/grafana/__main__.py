"""Write the dashboards: ``python -m cluster.grafana``."""

from pathlib import Path

from grafana_foundation_sdk.cog.encoder import JSONEncoder

from cluster.grafana.capacity import capacity
from cluster.grafana.gpus import gpus
from cluster.grafana.ledger import ledger
from cluster.grafana.service import service
from cluster.grafana.tenants import tenants

FOLDER = Path(__file__).parent
DASHBOARDS = (service, capacity, ledger, tenants, gpus)


def files() -> dict[str, str]:
    """Return the content of each JSON file by its name."""
    encoder = JSONEncoder(sort_keys=True, indent=1)
    return {f"{each.__name__}.json": encoder.encode(each().build()) + "\n" for each in DASHBOARDS}


if __name__ == "__main__":
    for name, text in files().items():
        (FOLDER / name).write_text(text, encoding="utf-8")
