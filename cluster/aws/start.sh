#!/usr/bin/env bash
# Fetch the secrets, and start Ray on this node with the arguments.
set -euo pipefail
umask 077
here=$(cd "$(dirname "$0")" && pwd)
# The secret has the lines RAY_AUTH_TOKEN='...' and RERANK_DATABASE_URL='...', and optionally
# RAY_REDIS_ADDRESS='...', for the head.
AWS_DEFAULT_REGION=$("$here/metadata.sh" placement/region) ~/rerank-env/bin/python -c '
import boto3
print(boto3.client("secretsmanager").get_secret_value(SecretId="rerank")["SecretString"])
' > ~/rerank-secrets.env
. "$here/env.sh"
if [[ $1 != --head ]]; then
    unset RAY_REDIS_ADDRESS
fi
ray stop
ulimit -n 65536
ray start "$@" --metrics-export-port=8080 --object-store-memory=134217728
pkill --full "$here/spot.sh" || true
nohup "$here/spot.sh" > ~/spot.log 2>&1 &
