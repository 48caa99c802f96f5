"""Tests, as claims about what the toolkit does."""
