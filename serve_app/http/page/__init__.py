"""The web pages for tenants (``/``) and operators (``/operator``)."""
