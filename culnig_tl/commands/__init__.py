"""The commands of `culnig-tl`, one file a word; `culnig_tl.cli` puts them together."""
