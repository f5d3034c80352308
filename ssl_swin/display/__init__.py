"""How long work shows how far it is: a line in a terminal, now and then a line in a file."""
