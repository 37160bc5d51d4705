"""The web page of a search: sentence, table and figures in one file."""

from polyloss_lightning.search.report.page import write_report

__all__ = ["write_report"]
