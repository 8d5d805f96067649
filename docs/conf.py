"""Sphinx's settings: furo, Markdown by MyST, no network, warnings are errors (`make docs`)."""

import sys
from importlib import metadata
from pathlib import Path

import torch

sys.path.insert(0, str(Path(__file__).parent / "_ext"))
import other_projects

project = "feedback_adapter"
author = "the feedback_adapter authors"
release = metadata.version("feedback-adapter")
extensions = [
    "checkpoint_pages",
    "command_line",
    "mathml",
    "public_names",
    "myst_parser",
    "results_tables",
    "sphinx.ext.autodoc",
    "sphinx.ext.intersphinx",
    "sphinx.ext.napoleon",
    "sphinx.ext.viewcode",
    "sphinx_gallery.gen_gallery",
]
exclude_patterns = ["_build", "examples"]
html_theme = "furo"
html_title = "feedback_adapter"
html_show_copyright = False
html_static_path = ["_static"]
html_css_files = ["site.css"]
html_favicon = "_static/favicon.svg"
html_math_renderer = "mathml"

myst_enable_extensions = ["colon_fence", "deflist", "dollarmath"]
myst_heading_anchors = 3

intersphinx_mapping = other_projects.mapping(Path(__file__).parent / "_build" / "inventories")
intersphinx_timeout = 10

default_role = "code"  # docstrings write code in single backticks
autodoc_member_order = "bysource"
autodoc_typehints = "signature"
napoleon_google_docstring = True
napoleon_numpy_docstring = False

torch.set_num_threads(1)  # the examples run beside the tests

sphinx_gallery_conf = {
    "examples_dirs": "examples",
    "gallery_dirs": "gallery",
    "filename_pattern": r"\.py$",  # every script is run
    "subsection_order": [
        "examples/first-steps",
        "examples/evidence",
        "examples/strategies",
        "examples/work",
        "examples/plugins",
    ],
    "within_subsection_order": "FileNameSortKey",
    "image_scrapers": "example_pictures.written_pictures",
    "thumbnail_size": (400, 280),
    "capture_repr": (),
    "reset_modules": (),
    "remove_config_comments": True,
    "download_all_examples": False,
    "show_signature": False,
    "show_memory": False,
    "write_computation_times": False,
    "abort_on_example_error": True,
}
