//! The capability graph.
