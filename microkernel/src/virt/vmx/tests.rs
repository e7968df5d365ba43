//! Tests of what needs no machine.
