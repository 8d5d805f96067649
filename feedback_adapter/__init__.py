"""Say what you already know about an image, and get better predictions of the rest.

Names are imported when they are first used, so that `feedback-adapter --help` answers before
PyTorch has loaded. Which names there are, and where each lives, is in `__init__.pyi`.
"""

import lazy_loader

__getattr__, __dir__, __all__ = lazy_loader.attach_stub(__name__, __file__)

__version__ = "0.1.0"
