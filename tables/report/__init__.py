"""`report.html`: every table, chart, picture and the provenance of every number on one self-contained page."""
