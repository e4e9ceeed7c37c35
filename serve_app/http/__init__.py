"""Everything that knows HTTP: routes, headers, statuses, the OpenAPI page."""
