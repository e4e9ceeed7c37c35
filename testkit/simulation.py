"""Names for the use of `testkit.simulated_gpu`, without importing it and Ray."""

SIMULATED_SCORER = "testkit.simulated_gpu:scorer"
"""Import path of a model's application in a Serve config file."""

TOKENS_PER_S, BATCHES_AT_ONCE = "SIMULATED_GPU_TOKENS_PER_S", "SIMULATED_GPU_BATCHES_AT_ONCE"
"""Environment variables, because they reach Ray's workers."""
