"""One run folder: durable, locked, balanced. A run is a pure function, and the store memoises it."""

from cai.store.calls import StoredCall, Usage
from cai.store.canonical import canonical_json, fingerprint
from cai.store.files import atomic_file, refuse_folder, write_bytes_atomically
from cai.store.manifest import MANIFEST_VERSION
from cai.store.memo import LASTING_FAILURES, MemoisedEngine
from cai.store.record_table import RecordKey
from cai.store.run_folder import PROGRAM, RunFolder
from cai.store.stage_table import StageResult, WrittenFile
from cai.store.verdict_file import REVIEW_NAME, VerdictFile

__all__ = [
    "LASTING_FAILURES",
    "MANIFEST_VERSION",
    "PROGRAM",
    "REVIEW_NAME",
    "MemoisedEngine",
    "RecordKey",
    "RunFolder",
    "StageResult",
    "StoredCall",
    "Usage",
    "VerdictFile",
    "WrittenFile",
    "atomic_file",
    "canonical_json",
    "fingerprint",
    "refuse_folder",
    "write_bytes_atomically",
]
