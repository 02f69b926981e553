"""Loops that watch: they refresh observed state or enqueue operations, and never edit the world."""
