#!/bin/sh
# Makes FOLDER/installer/netboot.iso: Debian's installer for networks, kernel and initial RAM disk as the package debian-installer-12-netboot-amd64 has them, which GRUB boots from a CD by BIOS and UEFI alike. Quick when it is there.
set -eu
folder=${1:?usage: installer.sh FOLDER}
package=debian-installer-12-netboot-amd64
out=$folder/installer
[ -s "$out/netboot.iso" ] && exit 0
for tool in apt-get dpkg-deb grub-mkrescue; do
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
    (cd "$folder/packages" && apt-get -q -o APT::Sandbox::User=root download $package >/dev/null)
fi
deb=$(ls -t "$folder/packages/${package}_"*.deb | head -n 1)
dpkg-deb --fsys-tarfile "$deb" | tar -x -C "$work" --wildcards '*/text/debian-installer/amd64/linux' '*/text/debian-installer/amd64/initrd.gz' './usr/share/doc/*/copyright'
mkdir -p "$work/iso/boot/grub"
mv "$work"/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/linux "$work"/usr/lib/debian-installer/images/12/amd64/text/debian-installer/amd64/initrd.gz "$work/iso"
mv "$work"/usr/share/doc/*/copyright "$work/iso/copyright"
cat >"$work/iso/boot/grub/grub.cfg" <<'END'
set timeout=3
set gfxpayload=text
if [ "$grub_platform" = efi ]; then set gfxpayload=keep; fi
menuentry "Install" {
    linux /linux vga=normal fb=false --- quiet
    initrd /initrd.gz
}
END
grub-mkrescue -o "$work/netboot.iso" "$work/iso" >"$out/grub-mkrescue.log" 2>&1 || {
    echo "installer.sh: grub-mkrescue failed: see $out/grub-mkrescue.log" >&2
    exit 1
}
mv "$work/netboot.iso" "$out/netboot.iso"
