"""The writer thread: group commit, maintenance and retention."""
