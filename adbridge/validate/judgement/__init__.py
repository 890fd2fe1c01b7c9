"""Numbers and arrays of an engine beside those of the referee, and what excuses a difference."""
