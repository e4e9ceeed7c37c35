#!/usr/bin/env bash
# One rerank request. RERANK_ADDRESS and RERANK_API_KEY override the local service.
set -euo pipefail

curl --silent --fail-with-body "${RERANK_ADDRESS:-http://127.0.0.1:8000}/v1/rerank" \
  --header "Authorization: Bearer ${RERANK_API_KEY:-$(cat var/dev.key)}" \
  --header 'Content-Type: application/json' \
  --data '{
    "query": "how tall is the eiffel tower",
    "documents": ["The Louvre is a museum in Paris.", "The Eiffel Tower is 330 metres tall."],
    "return_documents": true
  }'
