"""The protocol unstall.topics.v1 (SPEC-TOPICS.md). The server and its log are for tests."""
