"""What a cross-check asks, how it puts results beside each other, and the script that shows a fault."""
