"""One run folder: durable, locked, balanced. A run is a pure function, and the store memoises it."""

from cai.store.calls import StoredCall, Usage
from cai.store.canonical import canonical_json, fingerprint
from cai.store.files import atomic_file, write_bytes_atomically
from cai.store.memo import LASTING_FAILURES, MemoisedEngine
from cai.store.run_folder import MANIFEST_VERSION, PROGRAM, RunFolder, StageResult, WrittenFile

__all__ = [
    "LASTING_FAILURES",
    "MANIFEST_VERSION",
    "PROGRAM",
    "MemoisedEngine",
    "RunFolder",
    "StageResult",
    "StoredCall",
    "Usage",
    "WrittenFile",
    "atomic_file",
    "canonical_json",
    "fingerprint",
    "write_bytes_atomically",
]
