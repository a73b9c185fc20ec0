"""Losses as functions, with their sources, and as objectives that a recipe can name.

Every objective is a line below. It is here because importing any module of the package runs this file first, so that
`registry.OBJECTIVES` is never seen half filled.
"""

from medvl.objectives.anatomy_finding import Existence, PrototypeContrastive, RelationPrediction
from medvl.objectives.attributes import Attributes
from medvl.objectives.image_text import ImageTextContrastive
from medvl.objectives.late_interaction import LateInteraction
from medvl.objectives.marks import Marks
from medvl.objectives.masked_image import MaskedImageModeling
from medvl.objectives.pairs import Assertions, SigmoidPairwise
from medvl.objectives.registry import OBJECTIVES
from medvl.objectives.survival import Survival
from medvl.objectives.text_attributes import TextAttributes

OBJECTIVES.update(
    {
        "assertions": Assertions,
        "attributes": Attributes,
        "existence": Existence,
        "image_text_contrastive": ImageTextContrastive,
        "late_interaction": LateInteraction,
        "marks": Marks,
        "masked_image_modeling": MaskedImageModeling,
        "prototype_contrastive": PrototypeContrastive,
        "relation_prediction": RelationPrediction,
        "sigmoid_pairwise": SigmoidPairwise,
        "survival": Survival,
        "text_attributes": TextAttributes,
    }
)
