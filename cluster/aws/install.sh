#!/usr/bin/env bash
# Install the package on a node, and the packages that are given as arguments.
set -euo pipefail
cd "$(dirname "$0")/../.."
export DEBIAN_FRONTEND=noninteractive PIP_NO_CACHE_DIR=1
sudo -E apt-get update
sudo -E apt-get install --yes --no-install-recommends python3-venv
python3 -m venv ~/rerank-env
~/rerank-env/bin/pip install --require-hashes --no-deps --only-binary :all: -r requirements.txt
~/rerank-env/bin/pip install --no-deps --no-build-isolation .
~/rerank-env/bin/pip install boto3 "$@"
~/rerank-env/bin/pip check
