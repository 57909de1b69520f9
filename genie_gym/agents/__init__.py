"""Agents that learn inside a world, and the policies they leave behind."""
