"""Wire formats: bytes to a job, an outcome to bytes. They know nothing of HTTP."""
