#!/bin/sh
# Makes FOLDER/installer/netboot.iso: Debian 12's installer for networks, kernel and initial RAM disk as the package debian-installer-12-netboot-amd64 has them, which GRUB boots from a CD by BIOS and UEFI alike. With a second argument, 13, netboot-13.iso of Debian 13's. Quick when it is there.
set -eu
folder=${1:?usage: installer.sh FOLDER [13]}
release=${2:-12}
package=debian-installer-$release-netboot-amd64
out=$folder/installer
iso=$out/netboot.iso timeout=3
# One types at its boot loader.
[ "$release" = 12 ] || iso=$out/netboot-$release.iso timeout=30
[ -s "$iso" ] && exit 0
for tool in apt-get curl dpkg-deb grub-mkrescue; do
    command -v $tool >/dev/null || {
        echo "installer.sh: $tool is not installed; run 'make setup'" >&2
        exit 1
    }
done
mkdir -p "$folder/packages" "$out"
work=$(mktemp -d "$out/build.XXXXXX")
trap 'rm -rf "$work"' EXIT
if ! ls "$folder/packages/${package}_"*.deb >/dev/null 2>&1; then
    echo "Fetching $package (130 MB)"
    if [ "$release" = 12 ]; then
        (cd "$folder/packages" && apt-get -q -o APT::Sandbox::User=root download $package >/dev/null)
    else
        # Of another release than this machine's: by its name, and known by its sum. Its kernel is that of which mirrors have the modules.
        file=${package}_20250803+deb13u6_all.deb
        curl -fsS -o "$work/$file" "${TESSERA_MIRROR:-http://deb.debian.org/debian}/pool/main/d/debian-installer-netboot-images/$file"
        echo "b14500fba1c068c7d818de1376e46151628d96d8b2f322dfcbe7a16b7b8c2fa4  $work/$file" | sha256sum -c --quiet
        mv "$work/$file" "$folder/packages/$file"
    fi
fi
deb=$(ls -t "$folder/packages/${package}_"*.deb | head -n 1)
dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work" --wildcards '*/text/debian-installer/amd64/linux' '*/text/debian-installer/amd64/initrd.gz' './usr/share/doc/*/copyright'
mkdir -p "$work/iso/boot/grub"
mv "$work"/usr/lib/debian-installer/images/"$release"/amd64/text/debian-installer/amd64/linux "$work"/usr/lib/debian-installer/images/"$release"/amd64/text/debian-installer/amd64/initrd.gz "$work/iso"
mv "$work"/usr/share/doc/*/copyright "$work/iso/copyright"
cat >"$work/iso/boot/grub/grub.cfg" <<END
set timeout=$timeout
set gfxpayload=text
if [ "\$grub_platform" = efi ]; then set gfxpayload=keep; fi
menuentry "Install" {
    linux /linux vga=normal fb=false --- quiet
    initrd /initrd.gz
}
END
grub-mkrescue -o "$work/netboot.iso" "$work/iso" >"$out/grub-mkrescue.log" 2>&1 || {
    echo "installer.sh: grub-mkrescue failed: see $out/grub-mkrescue.log" >&2
    exit 1
}
mv "$work/netboot.iso" "$iso"
