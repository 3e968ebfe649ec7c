"""The federation's side: aggregates adapters, never sees an interaction."""
