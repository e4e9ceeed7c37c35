# Source this file before you run a command of the package. It sets the switches of cluster/ray.env
# and the secrets, which start.sh has fetched.
export PATH=~/rerank-env/bin:$PATH RERANK_VAR_DIR=~/rerank-var
set -a
. ~/rerank/cluster/ray.env
. ~/rerank-secrets.env
set +a
