"""Other people's principles → principle files, and back. What cannot be carried over is told, each with its place.

A format's reader gives principles; its writer gives the format's own data again. `way_back` compares the two, so that what is
said of it is measured on the very file.
"""

from constitution.importing.findings import Fate, Imported, Loss
from constitution.importing.formats import FORMATS, WRITABLE, Format
from constitution.importing.reading import import_file, principle_file_of
from constitution.importing.returning import Return, export_text, unsaid, way_back

__all__ = [
    "FORMATS",
    "WRITABLE",
    "Fate",
    "Format",
    "Imported",
    "Loss",
    "Return",
    "export_text",
    "import_file",
    "principle_file_of",
    "unsaid",
    "way_back",
]
