"""The HTTP methods of the API. HAProxy's command imports this module, so it imports nothing."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
"""The methods that reach the application; it refuses those that a route does not serve."""
