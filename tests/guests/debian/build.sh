#!/bin/sh
# Builds the root disk of the guests that run Debian from a disk: FOLDER/debian/disk.img, a raw ext4 file system of 1 GiB without a partition table, from debootstrap and the
# files of `root`. Quick when it is there and nothing it is made of changed. Needs root, for debootstrap runs what it installs; without, it says so in FOLDER/debian/missing,
# which the tests that need the disk give as the reason why they are skipped.
set -eu
folder=${1:?usage: build.sh FOLDER}
here=$(cd "$(dirname "$0")" && pwd)
out=$folder/debian
suite=bookworm
packages=systemd-sysv,udev,dbus,kmod,procps,iproute2,e2fsprogs,fio,nginx-light,iperf3,qemu-guest-agent
# The same each time, so that two builds differ only in what the mirror gave.
epoch=1750000000
uuid=7e55e7a0-0000-4000-8000-00000000d15c
PATH=$PATH:/usr/sbin:/sbin
export LC_ALL=C

mkdir -p "$out" "$folder/packages/debian"
fail() {
    echo "build.sh: the guests' Debian disk is not built: $1" >&2
    exit 1
}

package=$(cat "$folder/cloud/package" 2>/dev/null) || fail "there is no $folder/cloud/package; run tests/guests/fetch.sh $folder"
wanted=$( (cat "$0" && echo "$package" && cd "$here/root" && find . -type f | sort | xargs sha256sum) | sha256sum | cut -d ' ' -f 1)
[ -s "$out/disk.img" ] && [ "$(cat "$out/made-of" 2>/dev/null)" = "$wanted" ] && exit 0

rm -f "$out/disk.img"
if [ "$(id -u)" != 0 ]; then
    echo "the guests' Debian disk is missing, for building it needs root: run 'make setup' as root once" >"$out/missing"
    echo "Tests of guests with disks will be skipped: $(cat "$out/missing")" >&2
    exit 0
fi
for tool in debootstrap mke2fs dpkg-deb; do
    command -v $tool >/dev/null || fail "$tool is not installed; run 'make setup'"
done
cloud=$(ls -t "$folder/packages/${package%% *}_"*.deb 2>/dev/null | head -n 1)
[ -n "$cloud" ] || fail "$folder/packages has no ${package%% *}; remove $folder/cloud and run 'make setup'"

# The mirror and the proxy that apt uses here.
mirror=$(apt-get indextargets --format '$(SITE)' 'Identifier: Packages' "Codename: $suite" 2>/dev/null | head -n 1)
if [ -z "${http_proxy:-}" ]; then
    eval "$(apt-config shell http_proxy Acquire::http::Proxy)"
    [ -z "${http_proxy:-}" ] || export http_proxy
fi

echo "Building the guests' Debian disk with debootstrap (some two minutes, once)"
work=$(mktemp -d "$out/build.XXXXXX")
root=$work/root
clean_up() {
    # debootstrap mounts proc in it, and a killed one leaves it there.
    umount -q "$root/proc" 2>/dev/null || true
    rm -rf --one-file-system "$work"
}
trap clean_up EXIT
trap 'exit 1' INT TERM
cache=$(cd "$folder/packages/debian" && pwd)
debootstrap --variant=minbase --cache-dir="$cache" --include=$packages $suite "$root" "${mirror:-http://deb.debian.org/debian}" >"$out/debootstrap.log" 2>&1 ||
    fail "debootstrap failed: $(grep -E '^[EW]:' "$out/debootstrap.log" | tail -n 1) ($out/debootstrap.log)"

# Modules for the paravirtual devices, and what depmod says about them; the file system is in the kernel.
version=$(basename "$(dpkg-deb --fsys-tarfile "$cloud" | tar -t | grep -m 1 'modules.builtin$' | xargs dirname)")
dpkg-deb --fsys-tarfile "$cloud" | tar -x -C "$root" --keep-directory-symlink --wildcards \
    './lib/modules/*/modules.builtin*' './lib/modules/*/modules.order' './lib/modules/*/kernel/drivers/virtio/*' './lib/modules/*/virtio*.ko' \
    './lib/modules/*/*failover.ko' './lib/modules/*/crc32*.ko' './lib/modules/*/libcrc32c.ko'
chroot "$root" depmod "$version"

cp -R "$here/root/." "$root/"
echo "7e55e7a0000040008000000000d15c00" >"$root/etc/machine-id"
chroot "$root" passwd -q -d root
chroot "$root" systemctl -q disable nginx.service apt-daily.timer apt-daily-upgrade.timer dpkg-db-backup.timer e2scrub_all.timer fstrim.timer e2scrub_reap.service 2>/dev/null || true
chroot "$root" systemctl -q mask systemd-update-utmp.service systemd-update-utmp-runlevel.service
# Licences stay; what nobody reads in a test goes.
find "$root/usr/share/doc" -type f ! -name copyright -delete
rm -rf "$root"/usr/share/man/* "$root"/usr/share/info/* "$root"/usr/share/locale/* "$root"/var/cache/apt/* "$root"/var/lib/apt/lists/* "$root"/var/log/journal
find "$root/var/log" -type f -delete
find "$root/usr" "$root/var" -name __pycache__ -prune -exec rm -rf {} +

export SOURCE_DATE_EPOCH=$epoch E2FSPROGS_FAKE_TIME=$epoch
find "$root" -newermt "@$epoch" -exec touch -h -d "@$epoch" {} +
mke2fs -q -t ext4 -m 0 -L debian -U $uuid -E "hash_seed=$uuid,lazy_itable_init=0,lazy_journal_init=0" -d "$root" "$work/disk.img" 1G >"$out/mke2fs.log" 2>&1 ||
    fail "mke2fs failed: $(tail -n 1 "$out/mke2fs.log")"
# Sparse, whatever mke2fs wrote.
fallocate -d "$work/disk.img" 2>/dev/null || true
mv "$work/disk.img" "$out/disk.img"
echo "$wanted" >"$out/made-of"
rm -f "$out/missing"
