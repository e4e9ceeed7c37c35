"""The web page for tenants at ``/`` and the one for operators at ``/operator``."""
