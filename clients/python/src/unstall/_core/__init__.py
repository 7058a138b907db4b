"""The protocols unstall.v1 (SPEC.md) and unstall.topics.v1 (SPEC-TOPICS.md) as values, without I/O,
clock and randomness. It needs nothing but Python, and was written from the two texts."""
