#!/usr/bin/env bash
# Print an item of this instance's metadata.
set -euo pipefail
url=http://169.254.169.254/latest
token=$(curl --silent --fail --request PUT "$url/api/token" \
    --header 'X-aws-ec2-metadata-token-ttl-seconds: 60')
curl --silent --fail --header "X-aws-ec2-metadata-token: $token" "$url/meta-data/$1"
