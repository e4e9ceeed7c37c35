"""Checks whether a rerank server keeps to the API that its clients expect.

The checks know a server only through HTTP. ``docs/api/conformance.md`` describes them.
"""
