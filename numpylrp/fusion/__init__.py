"""Passes from a network to an equivalent one without normalization layers."""

from .fusing import Fused, Report, fuse, fused_once
from .pending import NotExact

__all__ = ["Fused", "NotExact", "Report", "fuse", "fused_once"]
