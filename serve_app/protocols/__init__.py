"""The wire formats: bytes in, a job out; an outcome in, bytes out. Knows pydantic, not HTTP."""
