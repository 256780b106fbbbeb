"""Adapters into and out of other tools' formats."""
