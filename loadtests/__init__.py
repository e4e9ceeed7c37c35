"""Locust load tests: `traffic` says what is sent, `locustfile` who sends it."""
