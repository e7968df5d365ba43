#!/bin/sh
# Finds a Rust compiler that comes with its library sources (core and alloc are built for the kernel's and the servers' targets) and prints
# the settings that the Makefile builds freestanding code with, one `NAME=VALUE` a line. First Debian's packages, then rustup's toolchains.
set -eu

# $1: directory of rustc and cargo, empty: as on PATH. $2: toolchain argument such as +nightly, or empty.
offer() {
    rustc="${1:+$1/}rustc"
    sysroot=$("$rustc" $2 --print sysroot 2>/dev/null) || return 1
    [ -f "$sysroot/lib/rustlib/src/rust/library/core/src/lib.rs" ] || return 1
    # Target files of one's own need this flag, which older versions of cargo lack.
    RUSTC_BOOTSTRAP=1 "${1:+$1/}cargo" $2 -Z help 2>/dev/null | grep -q json-target-spec || return 1
    # The sources' workspace names std's dependencies: cargo needs it to resolve build-std.
    [ -f "$sysroot/lib/rustlib/src/rust/library/Cargo.lock" ] || [ -f "$sysroot/lib/rustlib/src/rust/library/Cargo.toml" ] || return 1
    echo "TOOLCHAIN_PATH=$1"
    echo "TOOLCHAIN_ARGUMENT=$2"
    echo "TOOLCHAIN_SYSROOT=$sysroot"
    exit 0
}

offer /usr/bin "" || true
if command -v rustup >/dev/null 2>&1; then
    offer "" +nightly || true
    offer "" +stable || true
fi
offer "" "" || true
echo "toolchain.sh: no Rust compiler was found that has its library sources and knows -Zjson-target-spec (1.93 or newer)." >&2
echo "  Debian: apt-get install rustc-web cargo-web rust-web-src    rustup: rustup component add rust-src" >&2
exit 1
