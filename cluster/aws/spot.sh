#!/usr/bin/env bash
# Empty this node when AWS announces the end of its spot instance, two minutes before.
set -euo pipefail
while sleep 5; do
    if "$(dirname "$0")/metadata.sh" spot/instance-action; then
        exec rerank-serve drain --seconds 110
    fi
done
