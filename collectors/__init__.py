"""Recording real games to HDF5: policies that play, and the recorder that writes."""

from collectors.recorder import RecordingSummary, record

__all__ = ["RecordingSummary", "record"]
