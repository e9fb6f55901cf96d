"""Adapters to external programs."""
