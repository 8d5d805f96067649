"""Say what you already know about an image, and get better predictions of the rest."""

from .adapter import Adapter
from .batches import refine_batches
from .calibration import Calibration
from .checkpoint import Architecture, Card
from .defaults import Defaults
from .errors import FeedbackAdapterError
from .evidence import (
    All,
    Captions,
    Coarse,
    Evidence,
    Labels,
    Pixels,
    Reliability,
    Text,
    Wrong,
    write_captions,
)
from .explain import Contribution, Explanation
from .hookspecs import ArchitectureSpec, CheckpointSpec, EvidenceSpec, StrategySpec, hookimpl
from .imagenet import pretrained
from .outputs import Output, Outputs
from .pivot_search import Choice, choose_pivots
from .prepared import Prepared
from .prior import LabelPrior
from .refinement import Change, Doubt, Refinement
from .reliability import estimate_wrong
from .sites import Site, SiteInfo
from .strategies import (
    LBFGS,
    SGD,
    Adam,
    Facts,
    LayerwiseOptions,
    NewtonOptions,
    PosteriorOptions,
    Problem,
    ResidualOptions,
    Solver,
    Strategy,
)
from .transform import Transform
from .wrapping import load, wrap

__version__: str

__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "Adapter",
    "All",
    "Architecture",
    "ArchitectureSpec",
    "Calibration",
    "Captions",
    "Card",
    "Change",
    "CheckpointSpec",
    "Choice",
    "Coarse",
    "Contribution",
    "Defaults",
    "Doubt",
    "Evidence",
    "EvidenceSpec",
    "Explanation",
    "Facts",
    "FeedbackAdapterError",
    "LabelPrior",
    "Labels",
    "LayerwiseOptions",
    "NewtonOptions",
    "Output",
    "Outputs",
    "Pixels",
    "PosteriorOptions",
    "Prepared",
    "Problem",
    "Refinement",
    "Reliability",
    "ResidualOptions",
    "Site",
    "SiteInfo",
    "Solver",
    "Strategy",
    "StrategySpec",
    "Text",
    "Transform",
    "Wrong",
    "choose_pivots",
    "estimate_wrong",
    "hookimpl",
    "load",
    "pretrained",
    "refine_batches",
    "wrap",
    "write_captions",
]
