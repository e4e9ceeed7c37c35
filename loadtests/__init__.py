"""Locust load tests: `traffic` generates the requests, `locustfile` defines the clients."""
