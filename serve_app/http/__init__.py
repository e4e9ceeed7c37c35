"""The HTTP layer: routes, headers, statuses and the OpenAPI document."""
