"""What a world and the agents trained in it are worth: objects, figures, videos, the report."""
