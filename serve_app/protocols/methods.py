"""The HTTP methods of the API. HAProxy's command imports this module, so it imports nothing."""

METHODS = ("GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS")
