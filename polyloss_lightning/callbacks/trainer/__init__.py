"""What several callbacks read from a Trainer, and do with it."""
