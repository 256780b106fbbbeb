"""ilora: teach a frozen image generator to draw what it already knows.

This module is light: no torch behind it. The heart is `ilora_core.fit`.
"""

from ilora_core.cards import Card
from ilora_core.hookspecs import hookimpl

__all__ = ["API_VERSION", "Card", "__version__", "hookimpl"]

__version__ = "0.1.0"
API_VERSION = 1
