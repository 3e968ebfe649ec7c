"""One domain's side: the only room that sees interactions."""
