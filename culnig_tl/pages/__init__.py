"""Pages: what was found as self-contained HTML, of one study (`report`) or of several (`comparison_page`)."""
