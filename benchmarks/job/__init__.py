"""Where the time of a whole run goes."""
