//! Reads and prints benchmark lines.
