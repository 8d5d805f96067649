"""What the library itself registers, through the same hooks as any plugin."""

from __future__ import annotations

from feedback_adapter.evidence.captions import Captions, parse_caption
from feedback_adapter.evidence.coarse import Coarse, parse_coarse
from feedback_adapter.evidence.labels import Labels, parse_labels
from feedback_adapter.evidence.pixels import Pixels, parse_pixels
from feedback_adapter.evidence.text import Text, parse_text
from feedback_adapter.hookspecs import EvidenceSpec, StrategySpec, hookimpl
from feedback_adapter.strategies.clamp import Clamp, ClampOptions, where_it_is_enough
from feedback_adapter.strategies.layerwise import Layerwise, LayerwiseOptions
from feedback_adapter.strategies.newton import Newton, NewtonOptions
from feedback_adapter.strategies.posterior import Posterior, PosteriorOptions, where_statistics_help
from feedback_adapter.strategies.residual import Residual, ResidualOptions


@hookimpl
def feedback_adapter_evidence_types() -> list[EvidenceSpec]:
    """The kinds of evidence that come with the library."""
    return [
        EvidenceSpec("labels", Labels, "some labels are present, absent or likely", parse_labels),
        EvidenceSpec("coarse", Coarse, "the class is one of a coarse class's", parse_coarse),
        EvidenceSpec("text", Text, "text near the image mentions labels", parse_text),
        EvidenceSpec("caption", Captions, "a caption, for models that write them", parse_caption),
        EvidenceSpec("pixels", Pixels, "pixels of a map have known labels", parse_pixels),
    ]


@hookimpl
def feedback_adapter_strategies() -> list[StrategySpec]:
    """The strategies that come with the library."""
    return [
        StrategySpec(
            "residual",
            Residual,
            ResidualOptions,
            "add a change to every pivot, all at once",
            suits=lambda _: 0.5,
        ),
        StrategySpec("layerwise", Layerwise, LayerwiseOptions, "move one pivot after the other"),
        StrategySpec(
            "newton",
            Newton,
            NewtonOptions,
            "a few Gauss-Newton steps, whose length needs no tuning",
            suits=lambda _: 1.0,
        ),
        StrategySpec(
            "clamp",
            Clamp,
            ClampOptions,
            "no feedback: what is known is held fixed",
            suits=where_it_is_enough,
        ),
        StrategySpec(
            "posterior",
            Posterior,
            PosteriorOptions,
            "label statistics of a training set",
            uses="statistics",
            suits=where_statistics_help,
        ),
    ]
