"""Wire formats: bytes to a job, an outcome to bytes. They use pydantic and know nothing of HTTP."""
