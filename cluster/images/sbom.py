"""Print the packages of this Python environment and of Debian as an SBOM (CycloneDX 1.6).

It runs in the images, which contain nothing but the package's own requirements.
"""

import json
import subprocess
import sys
from importlib.metadata import PackageMetadata, distributions
from pathlib import Path
from typing import Any

DPKG = Path("/usr/bin/dpkg-query")


def python_packages() -> list[dict[str, Any]]:
    return [
        {
            "type": "library",
            "name": each.metadata["Name"],
            "version": each.version,
            "purl": f"pkg:pypi/{each.metadata['Name'].lower().replace('_', '-')}@{each.version}",
            **_licence(each.metadata),
        }
        for each in distributions()
    ]


def _licence(metadata: PackageMetadata) -> dict[str, Any]:
    field = "License-Expression"
    return {"licenses": [{"expression": metadata[field]}]} if field in metadata else {}


def debian_packages() -> list[dict[str, Any]]:
    """Return Debian's packages; none on a system without them."""
    if not DPKG.exists():
        return []
    command = [str(DPKG), "--show", "--showformat=${Package} ${Version} ${Architecture}\n"]
    listed = subprocess.run(command, check=True, capture_output=True, text=True).stdout
    packages = [line.split() for line in listed.splitlines()]
    return [
        {
            "type": "library",
            "name": name,
            "version": version,
            "purl": f"pkg:deb/debian/{name}@{version}?arch={architecture}",
        }
        for name, version, architecture in packages
    ]


def sbom() -> dict[str, Any]:
    components = python_packages() + debian_packages()
    return {
        "bomFormat": "CycloneDX",
        "specVersion": "1.6",
        "version": 1,
        "components": sorted(components, key=lambda each: each["purl"]),
    }


if __name__ == "__main__":
    json.dump(sbom(), sys.stdout, indent=1)
