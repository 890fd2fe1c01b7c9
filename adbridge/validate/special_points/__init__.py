"""Special points: every right answer, how engines are asked, and the functions that all of them have."""
