"""Check whether a rerank server has the API that its clients expect.

The checks know a server only through HTTP. ``docs/api/conformance.md`` describes them.
"""
