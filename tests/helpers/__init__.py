"""Small things that several test modules share."""
