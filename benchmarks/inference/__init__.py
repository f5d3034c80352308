"""How fast a trained network answers, and how exactly, by each way to run it."""
