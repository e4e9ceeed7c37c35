#!/usr/bin/env bash
# Drain this node when AWS announces the end of its spot instance, two minutes in advance.
set -euo pipefail
while sleep 5; do
    if "$(dirname "$0")/metadata.sh" spot/instance-action; then
        exec rerank-serve drain --seconds 110
    fi
done
