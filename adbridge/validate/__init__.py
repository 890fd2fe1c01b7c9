"""Who is right: verdicts."""
