"""The review in other programs: what is asked goes out as files that they load, and verdicts come back from theirs."""

from cai.review.exchange.moving import FORMS, Exported, Imported, export_review, import_review

__all__ = ["FORMS", "Exported", "Imported", "export_review", "import_review"]
