"""Which survey object each spectrum belongs to, by position."""
