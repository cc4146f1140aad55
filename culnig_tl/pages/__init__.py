"""Pages: what was found as self-contained HTML, one page of a study (`report`) or of several (`comparison_page`)."""
