#!/bin/sh
# Fetches Debian's kernels for the test guests as packages, unpacks them, and keeps them: build/guests/cloud/vmlinuz (linux-image-cloud-amd64) and
# build/guests/generic/vmlinuz (linux-image-amd64). Quick when they are there.
set -eu
folder=${1:?usage: fetch.sh FOLDER}
mkdir -p "$folder/packages"

fetch() {
    name=$1
    meta=$2
    [ -s "$folder/$name/vmlinuz" ] && [ -s "$folder/$name/copyright" ] && return 0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
        echo "fetch.sh: without Debian's apt-get and dpkg-deb, put a Linux bzImage at $folder/$name/vmlinuz and its copyright file beside it." >&2
        exit 1
    }
    package=$(resolve "$meta")
    if [ -z "$package" ] && [ "$(id -u)" = 0 ]; then
        apt-get update -qq
        package=$(resolve "$meta")
    fi
    [ -n "$package" ] || {
        echo "fetch.sh: apt knows no package $meta; run 'apt-get update' as root, on Debian for amd64." >&2
        exit 1
    }
    echo "Fetching the guest kernel $package"
    if ! ls "$folder/packages/${package}_"*.deb >/dev/null 2>&1; then
        (cd "$folder/packages" && apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null) || {
            # A list that is older than the mirror names packages that are gone.
            [ "$(id -u)" = 0 ] && apt-get update -qq && package=$(resolve "$meta") &&
                (cd "$folder/packages" && apt-get -q -o APT::Sandbox::User=root download "$package" >/dev/null)
        } || {
            echo "fetch.sh: $package could not be fetched; check the network and run 'apt-get update' as root." >&2
            exit 1
        }
    fi
    unpacked=$(mktemp -d "$folder/unpack.XXXXXX")
    deb=$(ls -t "$folder/packages/${package}_"*.deb | head -n 1)
    # Only the kernel and its copyright: the modules are 300 MB that no guest loads.
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$unpacked" --wildcards './boot/vmlinuz-*' "./usr/share/doc/*/copyright"
    mkdir -p "$folder/$name"
    mv "$unpacked"/usr/share/doc/*/copyright "$folder/$name/copyright"
    echo "$package $(dpkg-deb -f "$deb" Version)" >"$folder/$name/package"
    mv "$unpacked"/boot/vmlinuz-* "$folder/$name/vmlinuz"
    rm -rf "$unpacked"
}

# The package with the kernel that the meta package stands for.
resolve() {
    apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1
}

fetch cloud linux-image-cloud-amd64
fetch generic linux-image-amd64
