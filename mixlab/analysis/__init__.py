"""What can be said of a model without training it, and its forms for other runtimes."""

from mixlab.analysis.cost import ModelCost, added_parameters, model_cost
from mixlab.analysis.export import export_onnx, export_program

__all__ = ["ModelCost", "added_parameters", "export_onnx", "export_program", "model_cost"]
