"""Plan the capacity of a service: simulate its traffic, gateways, scorers and database."""
