"""The autoscaling policy: how many replicas a deployment should have. Pure."""
