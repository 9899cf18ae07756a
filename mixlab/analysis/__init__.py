"""What can be said of a model without training it."""

from mixlab.analysis.cost import ModelCost, model_cost

__all__ = ["ModelCost", "model_cost"]
