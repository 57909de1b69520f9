"""What a caller of a planner can cause."""


class PlannerError(ValueError):
    """Raised when a planner is asked for what it, or its model, does not have."""
