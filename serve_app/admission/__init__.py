"""Early and cheap refusal of requests and jobs that cannot enter the gateway."""
