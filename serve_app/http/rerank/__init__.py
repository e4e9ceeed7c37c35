"""The scoring endpoints: body, endpoint and disconnects of clients."""
