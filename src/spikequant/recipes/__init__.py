"""Recipes: whole experiments behind one call."""
