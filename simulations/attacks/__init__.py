"""Attacks on what a training releases and on what it serves.

They must fail where the ledger says so, and work where nothing is promised: ``audit.py`` trains both ways and asks.
"""
