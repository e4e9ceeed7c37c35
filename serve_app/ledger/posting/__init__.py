"""Post reservations, charges, voids and refunds in groups."""
