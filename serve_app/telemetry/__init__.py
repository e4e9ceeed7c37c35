"""What the service tells its operator: metrics as data, log lines as fields."""
