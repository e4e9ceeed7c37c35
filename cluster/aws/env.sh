# Source this file for the commands of the package, with the switches of cluster/ray.env and the
# secrets. start.sh has fetched them.
export PATH=~/rerank-env/bin:$PATH RERANK_VAR_DIR=~/rerank-var
set -a
. ~/rerank/cluster/ray.env
. ~/rerank-secrets.env
set +a
