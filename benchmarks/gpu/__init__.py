"""What the engine does on a GPU, in one command of at most six minutes."""
