"""Studies: does the ranking, made before training, predict which augmentation wins?"""

from .evidence import Arm, Evidence
from .outcomes import Outcome, Outcomes
from .page import write_results

__all__ = ["Arm", "Evidence", "Outcome", "Outcomes", "write_results"]
