#!/bin/sh
# Installs what the build and the tests need, where it is missing: by apt-get as root on Debian; elsewhere it says what to install. Quick when
# nothing is missing.
set -eu

# A file or command of each package, so that a machine that has it from elsewhere is content too.
missing=""
need() { # PACKAGE TEST...
    package=$1
    shift
    "$@" >/dev/null 2>&1 || missing="$missing $package"
}
have() { command -v "$1"; }
toolchain() { "$(dirname "$0")/toolchain.sh"; }
# sh's `command -v` finds programs of /usr/sbin only for root; these are where Debian puts them.
PATH=$PATH:/usr/sbin:/sbin

# The compiler for kernel and servers: any that has its library sources. Debian's has its lints and its formatter beside it, in the same version.
if ! toolchain >/dev/null 2>&1; then
    missing="$missing rustc-web cargo-web rust-web-src rust-web-clippy rustfmt-web"
elif toolchain | grep -qx 'TOOLCHAIN_PATH=/usr/bin'; then
    need rust-web-clippy test -x /usr/bin/cargo-clippy
    need rustfmt-web test -x /usr/bin/rustfmt
fi
need build-essential have cc
need lld have ld.lld
need qemu-system-x86 have qemu-system-x86_64
need qemu-utils have qemu-img
need ovmf test -e /usr/share/OVMF/OVMF_CODE_4M.fd
need seabios test -e /usr/share/seabios/bios-256k.bin
need grub-pc-bin test -e /usr/lib/grub/i386-pc/boot.img
need grub-efi-amd64-bin test -e /usr/lib/grub/x86_64-efi/kernel.img
need grub-common have grub-mkimage
need xorriso have xorriso
need mtools have mcopy
need busybox-static test -x /bin/busybox
need xz-utils have xz
# The Host Client is built by Node.js, and tested in a browser that shows Chinese too.
need nodejs have node
need npm have npm
need curl have curl
# What management is tested against. chrony leaves the clock of whoever runs the tests alone.
need dnsmasq-base have dnsmasq
need openssl have openssl
need testssl.sh have testssl
need chromium have chromium
need fonts-noto-cjk test -e /usr/share/fonts/opentype/noto
# The Debian disk of guests, which tests/guests/debian/build.sh builds as root.
if [ "$(id -u)" = 0 ]; then
    need debootstrap have debootstrap
    need e2fsprogs have mke2fs
    # Only where tests may have a port below 1024: it takes the place of whatever else sets the clock.
    need chrony have chronyd
fi
# Bochs, which tests/bochs/build.sh builds: its ROMs, and what building it needs beside a compiler.
need bochsbios test -e /usr/share/bochs/BIOS-bochs-latest
need vgabios test -e /usr/share/vgabios/vgabios.bin
need g++ have g++
need patch have patch

if [ -n "$missing" ]; then
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null; then
        echo "Installing:$missing"
        # Old package lists name versions that are gone, or a compiler that is too old.
        apt-get update -q
        # shellcheck disable=SC2086 # a list of words
        DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends $missing
    else
        echo "setup.sh: these packages are missing, install them as root and run 'make setup' again:" >&2
        echo "  apt-get install$missing" >&2
        echo "  (without Debian's compiler: rustup component add rust-src)" >&2
        exit 1
    fi
fi

# The host's tools and tests need no more than a stable compiler of the 2024 edition.
cargo --version >/dev/null 2>&1 || {
    echo "setup.sh: there is no cargo; install cargo-web, or Rust from https://rustup.rs" >&2
    exit 1
}
