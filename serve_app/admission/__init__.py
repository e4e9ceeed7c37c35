"""Decide which requests and jobs enter the gateway; refuse the others early and cheaply."""
