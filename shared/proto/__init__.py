"""The gRPC doors' messages and services. ``make proto`` writes the modules anew from ``recommender.proto``."""
