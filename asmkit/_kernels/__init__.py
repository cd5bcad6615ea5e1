"""Leaf: the only compiled code. Bare loops over arrays; the callers check, cast and reshape."""
