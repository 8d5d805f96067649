"""Say what you already know about an image, and get better predictions of the rest."""

from feedback_adapter.adapter import Adapter
from feedback_adapter.checkpoint import Architecture, Card
from feedback_adapter.defaults import Defaults
from feedback_adapter.errors import FeedbackAdapterError
from feedback_adapter.evidence import (
    All,
    Captions,
    Coarse,
    Evidence,
    Labels,
    Reliability,
    Text,
    write_captions,
)
from feedback_adapter.hookspecs import (
    ArchitectureSpec,
    CheckpointSpec,
    EvidenceSpec,
    StrategySpec,
    hookimpl,
)
from feedback_adapter.outputs import Output, Outputs
from feedback_adapter.pivot_search import Choice, choose_pivots
from feedback_adapter.prepared import Prepared
from feedback_adapter.pretrained import pretrained
from feedback_adapter.prior import LabelPrior
from feedback_adapter.refinement import Change, Refinement
from feedback_adapter.sites import Site, SiteInfo
from feedback_adapter.strategies import (
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
from feedback_adapter.transform import Transform
from feedback_adapter.wrapping import load, wrap

__version__ = "0.1.0"

__all__ = [
    "LBFGS",
    "SGD",
    "Adam",
    "Adapter",
    "All",
    "Architecture",
    "ArchitectureSpec",
    "Captions",
    "Card",
    "Change",
    "CheckpointSpec",
    "Choice",
    "Coarse",
    "Defaults",
    "Evidence",
    "EvidenceSpec",
    "Facts",
    "FeedbackAdapterError",
    "LabelPrior",
    "Labels",
    "LayerwiseOptions",
    "NewtonOptions",
    "Output",
    "Outputs",
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
    "choose_pivots",
    "hookimpl",
    "load",
    "pretrained",
    "wrap",
    "write_captions",
]
