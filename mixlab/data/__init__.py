"""Data sets: their cards, their sources, and the splits that training reads."""

from __future__ import annotations

from mixlab.data.card import DataCard, Event
from mixlab.data.config import DataConfig
from mixlab.data.images import ArrayImages
from mixlab.data.loose_files import image_files
from mixlab.data.masks import MaskStore
from mixlab.data.opening import ImageData, open_data
from mixlab.data.pairing import check_pairing
from mixlab.data.presence import at_hand
from mixlab.data.raw import RawData
from mixlab.data.sources import describe, list_datasets, register_dataset
from mixlab.data.split import ImageSplit

__all__ = [
    "ArrayImages",
    "DataCard",
    "DataConfig",
    "Event",
    "ImageData",
    "ImageSplit",
    "MaskStore",
    "RawData",
    "at_hand",
    "check_pairing",
    "describe",
    "image_files",
    "list_datasets",
    "open_data",
    "register_dataset",
]
