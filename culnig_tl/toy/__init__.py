"""The embedded model: a small Llama trained from scratch on the package's own questions. See README.md beside this file."""
