//! What a log answers to each start.
