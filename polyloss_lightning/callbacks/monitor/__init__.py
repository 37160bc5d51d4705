"""Helpers of PolynomialTermMonitor."""
