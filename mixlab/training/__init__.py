"""Training: recipes, the task, determinism, the numerical guard and the loop around Lightning.

Lightning and torchmetrics take seconds to import, so nothing here imports them before it needs them:
``mixlab.training.fit`` and ``mixlab.training.task`` are imported by the process that trains.
"""

from mixlab.training.recipe import PRESETS, Recipe

__all__ = ["PRESETS", "Recipe"]
