#!/bin/sh
# Fetches Debian's kernels for the test guests as packages, unpacks them, and keeps them: build/guests/cloud/vmlinuz (linux-image-cloud-amd64), some of its modules in
# build/guests/cloud/modules, and build/guests/generic/vmlinuz (linux-image-amd64). Quick when they are there.
set -eu
folder=${1:?usage: fetch.sh FOLDER}
mkdir -p "$folder/packages"

fetch() {
    name=$1
    meta=$2
    # One of its modules that earlier versions of this did not take.
    newest=$3
    # What it has beside what all kernels have.
    shift 3
    [ -s "$folder/$name/vmlinuz" ] && [ -s "$folder/$name/copyright" ] && [ -s "$folder/$name/modules/$newest.ko" ] && return 0
    command -v apt-get >/dev/null && command -v dpkg-deb >/dev/null || {
        echo "fetch.sh: without Debian's apt-get and dpkg-deb, put a Linux bzImage at $folder/$name/vmlinuz, its copyright file and a folder 'modules' with its virtio modules beside it." >&2
        exit 1
    }
    # What was fetched once is used again, also when the mirror has something newer.
    package=$(cut -d ' ' -f 1 "$folder/$name/package" 2>/dev/null || true)
    ls "$folder/packages/${package:-none}_"*.deb >/dev/null 2>&1 || package=$(resolve "$meta")
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
    # Only the kernel, its copyright and what a guest needs to reach its devices, CDs and VLANs: all modules are 300 MB.
    dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$unpacked" --wildcards './boot/vmlinuz-*' "./usr/share/doc/*/copyright" \
        './lib/modules/*/drivers/virtio/virtio*.ko' './lib/modules/*/drivers/block/virtio_blk.ko' './lib/modules/*/drivers/net/virtio_net.ko' \
        './lib/modules/*/failover.ko' './lib/modules/*/net_failover.ko' './lib/modules/*/virtio-rng.ko' './lib/modules/*/virtio_console.ko' \
        './lib/modules/*/pktgen.ko' './lib/modules/*/8021q.ko' './lib/modules/*/garp.ko' './lib/modules/*/mrp.ko' './lib/modules/*/stp.ko' './lib/modules/*/llc.ko' \
        './lib/modules/*/efivarfs.ko' './lib/modules/*/pvpanic*.ko' './lib/modules/*/watchdog/[iw][6a]*.ko' \
        './lib/modules/*/ata/libata.ko' './lib/modules/*/ata/ata_piix.ko' './lib/modules/*/scsi/scsi_common.ko' './lib/modules/*/scsi/scsi_mod.ko' \
        './lib/modules/*/scsi/sr_mod.ko' './lib/modules/*/cdrom.ko' './lib/modules/*/isofs.ko' "$@"
    mkdir -p "$folder/$name"
    mv "$unpacked"/usr/share/doc/*/copyright "$folder/$name/copyright"
    echo "$package $(dpkg-deb -f "$deb" Version)" >"$folder/$name/package"
    rm -rf "$folder/$name/modules"
    mkdir "$folder/$name/modules"
    find "$unpacked/lib" -name '*.ko' -exec mv {} "$folder/$name/modules" \;
    mv "$unpacked"/boot/vmlinuz-* "$folder/$name/vmlinuz"
    rm -rf "$unpacked"
}

# The package with the kernel that the meta package stands for.
resolve() {
    apt-cache depends "$1" 2>/dev/null | sed -n 's/^ *Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1
}

fetch cloud linux-image-cloud-amd64 isofs
fetch generic linux-image-amd64 usbhid './lib/modules/*/ata/*ahci.ko' './lib/modules/*/scsi/sd_mod.ko' './lib/modules/*/block/t10-pi.ko' './lib/modules/*/crc64*.ko' \
    './lib/modules/*/crc*t10dif*.ko' './lib/modules/*/intel/e1000e/e1000e.ko' './lib/modules/*/crc16.ko' './lib/modules/*/crc32c_generic.ko' './lib/modules/*/mbcache.ko' \
    './lib/modules/*/jbd2.ko' './lib/modules/*/ext4.ko' './lib/modules/*/usb/common/usb-common.ko' './lib/modules/*/usb/core/usbcore.ko' './lib/modules/*/usb/host/xhci-[hp]c*.ko' \
    './lib/modules/*/hid/hid.ko' './lib/modules/*/hid/hid-generic.ko' './lib/modules/*/usbhid/usbhid.ko' './lib/modules/*/input/evdev.ko' './lib/modules/*/mouse/psmouse.ko'
