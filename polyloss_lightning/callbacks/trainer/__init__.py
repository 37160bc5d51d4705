"""Helpers for reading and wrapping a Trainer, shared by the callbacks."""
