"""Neutral ground that both daemons and other people's programs may import."""
