"""Rules of reservations, budgets, rate windows and prices. Pure."""
