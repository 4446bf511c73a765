"""Classification of images: :func:`evaluate` a model on a data set, :func:`predict` names for files of one's own."""

from mvitv2.tasks.evaluation import Evaluation, Example, evaluate
from mvitv2.tasks.prediction import Prediction, predict

__all__ = ["Evaluation", "Example", "Prediction", "evaluate", "predict"]
