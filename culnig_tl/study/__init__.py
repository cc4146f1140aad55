"""A whole study: what decides it (`config`), what it found (`study`, `findings`), its statistics
(`comparison`), its folder."""
