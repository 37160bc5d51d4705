"""What serves the term monitor alone."""
