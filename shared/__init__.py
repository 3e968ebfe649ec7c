"""What client and server must agree on. Knows neither side and opens no socket."""
