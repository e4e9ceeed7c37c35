"""Manifests for Kubernetes with KubeRay; docs/operate/kubernetes.md describes them."""
