#!/bin/sh
# Provides Bochs 3.0, which emulates VT-x: built from Debian 13's source package, on Debian 12 or newer, in one to three minutes. Where that does not work it
# takes Debian's packaged Bochs. Quick when it is there.
#
# Why built: 3.0 is three times as fast as the packaged 2.7, has posted interrupts, needs no screen, and repeats its runs exactly.
set -eu
out=${1:?usage: build.sh OUTPUT-FILE}
# Built anew when what is done to it here changes.
[ -x "$out" ] && cmp -s "$0" "$out.made-by" && exit 0

folder=$(dirname "$out")
mkdir -p "$folder"
folder=$(cd "$folder" && pwd)
work=$folder/bochs-work
log=$folder/bochs-build.log

fetch() {
    # The mirror that this machine uses for Debian anyway, with another release's sources; the system's own lists stay as they are.
    mirror=$(apt-get indextargets --format '$(REPO_URI)|$(SUITE)|$(ORIGIN)' | awk -F'|' '$3 == "Debian" && $2 !~ /security/ { print $1; exit }')
    [ -n "$mirror" ] || {
        echo "apt-get knows no mirror of Debian: run 'apt-get update' as root"
        return 1
    }
    mkdir -p "$work/lists/partial" "$work/cache/archives/partial" "$work/source"
    echo "deb-src [signed-by=/usr/share/keyrings/debian-archive-keyring.gpg] $mirror trixie main" >"$work/sources.list"
    apt() {
        apt-get -q -o "Dir::Etc::sourcelist=$work/sources.list" -o Dir::Etc::sourceparts=- -o "Dir::State::lists=$work/lists" \
            -o "Dir::Cache=$work/cache" -o APT::Sandbox::User=root "$@"
    }
    apt update || return 1
    # A mirror can lack the file that describes the package while it has both archives: the hashes decide.
    (cd "$work/source" && apt source --download-only bochs=3.0+dfsg-1) || true
    (cd "$work/source" && sha256sum -c <<'SUMS')
78f6c73d4a6472d5130a87ab9dc306d02c7c71ed8e25b3a8ef642e2a7acd282b  bochs_3.0+dfsg.orig.tar.xz
c68fe1162aa485249467ec93707ccbf5d039b00d12815899fc2c819ec16d00df  bochs_3.0+dfsg-1.debian.tar.xz
SUMS
}

compile() {
    mkdir -p "$work/tree" && cd "$work/tree" || return 1
    tar -xf ../source/bochs_3.0+dfsg.orig.tar.xz --strip-components=1 && tar -xf ../source/bochs_3.0+dfsg-1.debian.tar.xz || return 1
    while read -r patch; do
        case $patch in
            '' | '#'*) ;;
            *) patch -p1 -s <"debian/patches/$patch" || return 1 ;;
        esac
    done <debian/patches/series
    # The same RDRAND values in every run, so that a run can be repeated.
    sed -i 's/srand(time(NULL));.*/srand(1);/' cpu/init.cc
    # With several processors an exit that comes right behind an exception would report the instruction that faulted, not the handler's: commit RIP as
    # the loop for one processor does.
    sed -i '/^void BX_CPU_C::cpu_run_trace(void)$/{n;s/{/{ BX_CPU_THIS_PTR prev_rip = RIP; BX_CPU_THIS_PTR speculative_rsp = false;/}' cpu/cpu.cc
    grep -q 'prev_rip = RIP; BX_CPU_THIS_PTR speculative_rsp' cpu/cpu.cc || return 1
    # A guest that masks interrupts would get a pending virtual interrupt all the same when one of the host's arrives; and one that was entered with them masked
    # would keep the host's back.
    sed -i '/^void BX_CPU_C::HandleExtInterrupt/,/^}/s/if (is_pending(BX_EVENT_PENDING_VMX_VIRTUAL_INTR))/if (is_unmasked_event_pending(BX_EVENT_PENDING_VMX_VIRTUAL_INTR))/' cpu/event.cc
    grep -q 'if (is_unmasked_event_pending(BX_EVENT_PENDING_VMX_VIRTUAL_INTR))' cpu/event.cc || return 1
    sed -i '/^  BX_CPU_THIS_PTR in_vmx_guest = true;$/{n;s/^$/  handleInterruptMaskChange();/}' cpu/vmx.cc
    grep -q '^  handleInterruptMaskChange();$' cpu/vmx.cc || return 1
    # And a guest by AMD-V would not get the virtual interrupt that it is entered with before it changes the flag.
    sed -i 's/^  BX_CPU_THIS_PTR in_svm_guest = true;$/&\n  handleInterruptMaskChange();/' cpu/svm.cc
    grep -q '^  handleInterruptMaskChange();$' cpu/svm.cc || return 1
    # A notification of posted interrupts that finds none, because the entry before it took them over, would request vector 255.
    sed -i '/^bool BX_CPU_C::VMX_Posted_Interrupt_Processing/,/^}/{s/^  vector = \(.*highest_priority_int(virr);\)/  int highest = \1/;s/if (vector >= vm->rvi) vm->rvi = vector;/if (highest > int(vm->rvi)) vm->rvi = highest;/}' cpu/vapic.cc
    [ "$(grep -c 'int highest = \|if (highest > int(vm->rvi))' cpu/vapic.cc)" = 2 ] || return 1
    # Parts of VT-x can be left out: those whose bits (BX_VMX_... in cpu/cpuid.h) the environment has, in hexadecimal.
    sed -i 's/^  BX_CPU_THIS_PTR vmx_extensions_bitmask = .*/&\n  if (const char *without = getenv("BOCHS_WITHOUT_VMX"))\n    BX_CPU_THIS_PTR vmx_extensions_bitmask \&= ~Bit32u(strtoul(without, NULL, 16));/' cpu/init.cc
    grep -q 'BOCHS_WITHOUT_VMX' cpu/init.cc || return 1
    # A virtual switch takes frames for its guests too, so the card decides what it receives; and nobody but this machine sends any.
    sed -i '/let through broadcast and our mac address/,/^  }$/d; s/htonl(INADDR_ANY)/htonl(INADDR_LOOPBACK)/' iodev/network/eth_socket.cc
    [ "$(grep -c 'INADDR_LOOPBACK\|socket_macaddr, 6) != 0' iodev/network/eth_socket.cc)" = 1 ] || return 1
    ./configure --with-nogui --disable-plugins --disable-docbook --disable-xpm \
        --enable-x86-64 --enable-cpu-level=6 --enable-smp --enable-vmx=2 --enable-svm \
        --enable-all-optimizations --enable-long-phy-address --enable-configurable-msrs \
        --enable-a20-pin --enable-fpu --enable-alignment-check --enable-monitor-mwait --enable-perfmon \
        --enable-memtype --enable-avx --enable-evex --enable-cet --enable-protection-keys --enable-uintr --enable-amx \
        --enable-x86-debugger --enable-pci --enable-e1000 --enable-ne2000 --enable-pnic --enable-cdrom \
        --enable-iodebug --enable-usb --enable-usb-xhci --enable-logging --enable-stats --enable-idle-hack=no \
        CFLAGS="-O3 -pipe -fno-strict-aliasing" CXXFLAGS="-O3 -pipe -fno-strict-aliasing" || return 1
    make -j"$(nproc)" bochs || return 1
    # In one step, so that a script that is stopped here leaves nothing that looks whole.
    cp bochs "$folder/bochs.new" && mv "$folder/bochs.new" "$out"
}

# Debian's own, which Program::find in tests/src/machine/bochs.rs knows how to start.
packaged() {
    case $(bochs --help 2>&1) in
        *'Bochs x86 Emulator 2.7'* | *'Bochs x86 Emulator 3.'*) return 0 ;;
    esac
    [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -q --no-install-recommends bochs bochs-x >>"$log" 2>&1
}

case $out in /*) ;; *) out=$(pwd)/$out ;; esac
printf 'Building Bochs 3.0 (one to three minutes; log in %s)\n' "$log"
if (fetch && compile) >"$log" 2>&1; then
    rm -rf "$work"
    cp "$0" "$out.made-by"
    exit 0
fi
echo "build.sh: Bochs 3.0 could not be built:" >&2
tail -n 5 "$log" | sed 's/^/    /' >&2
if packaged; then
    echo "build.sh: Debian's packaged Bochs is used instead, which is slower." >&2
    exit 0
fi
# Everything else works without it, so this does not stop the setup.
echo "build.sh: there is no Bochs, so tests with VT-x will be skipped. Mend what the log says and run 'make setup' again; g++, make, patch and xz are needed, and a" >&2
echo "  mirror that has Debian 13's sources. Any Bochs 3 with VMX will do at $out." >&2
