"""Random shooting: draw plans, roll them out, take the first action of the best."""

from planners.categorical import CategoricalConfig, CategoricalPlanner


class RandomShooting(CategoricalPlanner[CategoricalConfig]):
    """Plans by scoring random sticky plans; it learns nothing but which were the best.

    With `num_kept=0` a search takes nothing over from the one before: the plain baseline.
    """
