"""Usage events: written with the charge, queued and delivered over HTTP."""
