# Tessera's front door. `make help` lists what there is.
#
# Freestanding code (kernel, servers) and host tools are built by separate cargo calls: in one call cargo would unify their features and pull
# std into servers. Each call has the target directory that suits its compiler.

SHELL := /bin/bash
.SHELLFLAGS := -eu -o pipefail -c
.DEFAULT_GOAL := help

BUILD ?= build
SYSTEM ?= system.toml
# What emulates the machine: qemu (a processor with AMD-V) or bochs (VT-x).
MACHINE ?= qemu
FIRMWARE ?= bios
SMP ?= 2
MEM ?= 2G
# Further image-builder options, such as SET='--set vm.debian.vcpus=2'.
SET ?=
# The first password of root, if the host is not to make one by itself.
ADMIN_PASSWORD ?=
ifneq ($(ADMIN_PASSWORD),)
SET += --set 'server.hostd.arguments=["password=$(ADMIN_PASSWORD)"]'
endif
ONLY ?=
GRAPH ?= docs/capabilities.svg

CARGO_TARGET_DIR ?= target
export CARGO_TARGET_DIR
# Tools of the developer's machine need not be as small and fast as the system: without link-time optimisation they build in a third of the time.
HOST_CARGO = CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 CARGO_PROFILE_RELEASE_PANIC=unwind cargo
HOST_BIN = $(CARGO_TARGET_DIR)/release
PROGRAMS = $(BUILD)/programs
GUESTS = $(BUILD)/guests
BOCHS = $(BUILD)/emulators/bochs
BARE_GUESTS = bare-guest boot-sector-guest screen-guest multiboot-guest conformance-guest
IMAGE = $(BUILD)/tessera.img
ISO = $(BUILD)/tessera.iso
WEB = hostd-server/web
WEB_PACK = $(BUILD)/web.pack

# --- The compiler for freestanding code, found in one place -------------------------------------------------------------------------------
FREESTANDING_TARGET_DIR = $(CARGO_TARGET_DIR)/freestanding
CARGO_HOME ?= $(HOME)/.cargo
# Without the paths of this machine in the programs, two checkouts give the same image.
REMAP = --remap-path-prefix=$(CURDIR)=/tessera --remap-path-prefix=$(CARGO_HOME)/registry/src=/crates
define FREESTANDING
eval "$$(image-builder/scripts/toolchain.sh)"; \
	PATH="$${TOOLCHAIN_PATH:+$$TOOLCHAIN_PATH:}$$PATH" RUSTC_BOOTSTRAP=1 CARGO_TARGET_DIR=$(FREESTANDING_TARGET_DIR) \
	CARGO_TARGET_X86_64_UNKNOWN_NONE_LINKER=ld.lld
endef
BUILD_STD = -Zbuild-std=core,alloc,compiler_builtins -Zbuild-std-features=compiler-builtins-mem -Zjson-target-spec
KERNEL_TARGET = x86_64-unknown-none
SERVER_TARGET = services/targets/x86_64-tessera.json
# The VMM's threads declare that they use no FPU, so that a guest's extended state can stay in the registers across its exits.
VMM_TARGET = services/targets/x86_64-tessera-nosimd.json
PROGRAM_PACKAGES = -p tessera-kernel $(SERVER_PACKAGES) -p tessera-vmm
GUEST_PACKAGES = -p tessera-bare-guest -p tessera-format-guests -p tessera-conformance
SERVER_PACKAGES = -p tessera-init -p tessera-shell -p tessera-hostd -p tessera-storage -p tessera-net -p tessera-vmx -p tessera-probe
# What runs on the developer's machine, and what has logic that is tested there.
FREESTANDING_ONLY = $(GUEST_PACKAGES:-p=--exclude)

cargo_freestanding = $(FREESTANDING) RUSTFLAGS="$(REMAP) $(3)" cargo $${TOOLCHAIN_ARGUMENT} $(1) --release $(BUILD_STD) --target $(2)
KERNEL_FLAGS = -C code-model=kernel -C relocation-model=static
GUEST_FLAGS = $(KERNEL_FLAGS)

say = @printf '\033[1m==>\033[0m %s\n' "$(1)"
comma := ,

# --- Building -----------------------------------------------------------------------------------------------------------------------------
.PHONY: help setup test-api guests kernel servers vmm programs tools web web-lint web-unit image iso graph check run run-qemu run-bochs gdb test unit test-power-cuts test-load test-management-long test-browser test-storage-long test-bochs-long test-net-long test-suspend test-install test-installer system-tests lint fmt clippy clippy-freestanding bench clean

help: ## List what can be made
	@awk -F ':.*## ' '/^[a-z-]+:.*## / { printf "  make %-15s %s\n", $$1, $$2 }' Makefile
	@echo "  Settings: MACHINE=qemu|bochs SMP=$(SMP) MEM=$(MEM) FIRMWARE=bios|uefi SYSTEM=$(SYSTEM) SET='--set vm.debian.vcpus=2'"

setup: ## Install what is missing (as root on Debian), build Bochs, fetch the guests' kernels, build their Debian disk
	@image-builder/scripts/setup.sh
	@tests/bochs/build.sh $(BOCHS)
	@tests/guests/fetch.sh $(GUESTS)
	@tests/guests/debian/build.sh $(GUESTS)
	@tests/guests/installer.sh $(GUESTS)

# The guests' RAM disks, and the guests of tests that bring no operating system.
guests:
	$(call say,Building the guests)
	@$(HOST_CARGO) build --release -p tessera-tests --bin guest-initramfs
	@$(HOST_CARGO) rustc --release -q -p tessera-netload -- -C target-feature=+crt-static -C relocation-model=static -C strip=symbols
	@$(HOST_BIN)/guest-initramfs --output $(GUESTS) --netload $(HOST_BIN)/netload
	@cp /usr/share/doc/busybox-static/copyright $(GUESTS)/copyright
	@for pair in bios:seabios:/usr/share/seabios/bios-256k.bin vga-bios:seabios:/usr/share/seabios/vgabios-stdvga.bin uefi:ovmf:/usr/share/ovmf/OVMF.fd; do \
		IFS=: read -r name package file <<< "$$pair"; \
		install -C -D -m 644 "$$file" $(GUESTS)/$$name/$$name.bin; \
		install -C -m 644 /usr/share/doc/$$package/copyright $(GUESTS)/$$name/copyright; \
		echo "$$package" > $(GUESTS)/$$name/package; done
	@$(call cargo_freestanding,build,$(KERNEL_TARGET),$(GUEST_FLAGS)) $(GUEST_PACKAGES)
	@for guest in $(BARE_GUESTS); do install -C -m 644 $(FREESTANDING_TARGET_DIR)/$(KERNEL_TARGET)/release/$$guest $(GUESTS)/$$guest; done

kernel:
	$(call say,Building the kernel)
	@$(call cargo_freestanding,build,$(KERNEL_TARGET),$(KERNEL_FLAGS)) -p tessera-kernel

servers:
	$(call say,Building the servers)
	@$(call cargo_freestanding,build,$(SERVER_TARGET),) $(SERVER_PACKAGES)

vmm:
	$(call say,Building the virtual machine monitor)
	@$(call cargo_freestanding,build,$(VMM_TARGET),) -p tessera-vmm

tools:
	$(call say,Building the tools of this machine)
	@$(HOST_CARGO) build --release -p image-builder

# Copies what was built under its short name to where image-builder looks; untouched when the same.
programs: kernel servers vmm $(PROGRAMS)/NOTICE.txt $(PROGRAMS)/licences.txt
	@mkdir -p $(PROGRAMS)
	@copy() { if [ -f "$$1" ]; then install -C -m 644 "$$1" $(PROGRAMS)/$$2; fi; }; \
		copy $(FREESTANDING_TARGET_DIR)/$(KERNEL_TARGET)/release/tessera-kernel kernel; \
		copy $(FREESTANDING_TARGET_DIR)/x86_64-tessera-nosimd/release/tessera-vmm vmm; \
		for name in init shell hostd storage net vmx probe; do copy $(FREESTANDING_TARGET_DIR)/x86_64-tessera/release/tessera-$$name $$name; done

# Licences of what the programs are linked from; they change when a dependency does.
$(PROGRAMS)/NOTICE.txt: Cargo.lock | tools
	@mkdir -p $(PROGRAMS)
	@$(HOST_BIN)/image-builder notices $(PROGRAM_PACKAGES) --output $@
	@touch $@

# Their list alone, which hostd shows; the texts stand on the boot partition.
$(PROGRAMS)/licences.txt: $(PROGRAMS)/NOTICE.txt
	@sed '/^---- /,$$d' $< > $@

# The Host Client, packed into one file for the image. Without Node.js a pack that was built elsewhere serves.
web: ## Build the Host Client
	@if command -v npm >/dev/null; then $(MAKE) -s --no-print-directory $(WEB_PACK); \
		elif [ -f $(WEB_PACK) ]; then echo "There is no npm: $(WEB_PACK) stays as it is." >&2; \
		else echo "There is neither npm nor $(WEB_PACK): install nodejs and npm ('make setup'), or put a pack there that was built elsewhere." >&2; exit 1; fi

$(WEB_PACK): $(WEB)/node_modules/.installed $(shell find $(WEB)/src $(WEB)/public $(WEB)/scripts -type f 2>/dev/null) $(WEB)/index.html $(WEB)/vite.config.ts
	$(call say,Building the Host Client)
	@mkdir -p $(BUILD)
	@cd $(WEB) && npx --no-install vite build --logLevel warn && node scripts/pack.mjs $(abspath $@)

$(WEB)/node_modules/.installed: $(WEB)/package.json $(WEB)/package-lock.json $(WEB)/.npmrc
	$(call say,Fetching what the Host Client is built with)
	@cd $(WEB) && npm ci --loglevel=error
	@touch $@

image: programs tools guests web ## Build the disk image that boots through BIOS and UEFI
	@$(HOST_BIN)/image-builder build --system $(SYSTEM) --programs $(PROGRAMS) --output $(BUILD) --format disk $(SET)

iso: programs tools guests web ## Build the hybrid ISO
	@$(HOST_BIN)/image-builder build --system $(SYSTEM) --programs $(PROGRAMS) --output $(BUILD) --format iso $(SET)

graph: tools ## Draw the capability graph as SVG (GRAPH=docs/capabilities.svg)
	@$(HOST_BIN)/image-builder graph --system $(SYSTEM) --output $(GRAPH) $(SET)

check: tools ## Check system.toml
	@$(HOST_BIN)/image-builder check --system $(SYSTEM) $(SET)

# --- Running ------------------------------------------------------------------------------------------------------------------------------
# Emulated processors take turns on one thread: side by side, one that loads the state of its FPU damages the first one's when that enters or leaves a guest.
ACCEL ?= tcg,thread=single
QEMU = qemu-system-x86_64 -machine q35 -accel $(ACCEL) -cpu max,+svm,+npt -smp $(SMP) -m $(MEM) -display none
QEMU_DISK = -drive file=$(IMAGE),format=raw,if=none,id=boot,snapshot=on -device ide-hd,drive=boot,bus=ide.0
OVMF = /usr/share/OVMF
QEMU_FIRMWARE_bios =
QEMU_FIRMWARE_uefi = -drive if=pflash,format=raw,unit=0,readonly=on,file=$(OVMF)/OVMF_CODE_4M.fd \
	-drive if=pflash,format=raw,unit=1,snapshot=on,file=$(OVMF)/OVMF_VARS_4M.fd

# The escape character of the serial line is Ctrl-A, so Ctrl-C and Ctrl-] reach the shell and the guests.
# The host's port 443 is port 8443 of this machine.
HTTPS ?= 8443
QEMU_NETWORK = -netdev user,id=uplink,hostfwd=tcp:127.0.0.1:$(HTTPS)-:443 -device virtio-net-pci,netdev=uplink

QEMU_CONSOLE = -chardev stdio,id=console,mux=on,signal=off -serial chardev:console -mon chardev=console,mode=readline

HOW_TO_QUIT = To quit: Ctrl-A$(comma) then x (Ctrl-A twice sends one). Back from a guest's console: Ctrl-]

run: setup image ## Build everything and boot it, with the debug shell on this terminal (MACHINE=bochs: with VT-x instead of AMD-V)
	@$(MAKE) --no-print-directory run-$(MACHINE)

run-qemu:
	$(call say,Booting in QEMU with AMD-V ($(FIRMWARE)$(comma) $(SMP) processors$(comma) $(MEM)). $(HOW_TO_QUIT))
	$(call say,The Host Client: https://127.0.0.1:$(HTTPS) (a certificate of the host's own making). Log in as root; $(if $(ADMIN_PASSWORD),with the ADMIN_PASSWORD you gave,the command log in the debug shell shows the password))
	@exec $(QEMU) $(QEMU_FIRMWARE_$(FIRMWARE)) $(QEMU_DISK) $(QEMU_NETWORK) $(QEMU_CONSOLE)

# Keys and their meaning are the same as in QEMU.
run-bochs:
	@[ $(FIRMWARE) = bios ] || { echo "Bochs starts machines through BIOS alone: leave out FIRMWARE=$(FIRMWARE), or use MACHINE=qemu." >&2; exit 1; }
	@$(HOST_CARGO) build --release -p tessera-tests --bin bochs-terminal
	$(call say,Booting in Bochs with VT-x ($(SMP) processors$(comma) $(MEM)); the first lines come after some ten seconds. $(HOW_TO_QUIT))
	@exec $(HOST_BIN)/bochs-terminal --cpus $(SMP) --memory $(MEM) --logs $(BUILD)/run-logs $(IMAGE)

gdb: image ## Boot and wait for gdb on port 1234 (gdb build/programs/kernel -ex 'target remote :1234')
	$(call say,Waiting for gdb: gdb $(PROGRAMS)/kernel -ex 'target remote :1234'. To quit: Ctrl-A$(comma) then x)
	@exec $(QEMU) $(QEMU_FIRMWARE_$(FIRMWARE)) $(QEMU_DISK) $(QEMU_CONSOLE) -s -S

# --- Testing ------------------------------------------------------------------------------------------------------------------------------
lint: fmt clippy clippy-freestanding web-lint ## Check formatting, and all code with clippy, as the host and as the machine would build it

fmt:
	$(call say,Checking the formatting)
	@cargo fmt --all --check

clippy:
	$(call say,Checking with clippy: host)
	@cargo clippy --workspace --all-targets --keep-going $(FREESTANDING_ONLY) -- -D warnings

clippy-freestanding:
	$(call say,Checking with clippy: kernel$(comma) guest$(comma) servers$(comma) VMM)
	@$(call cargo_freestanding,clippy,$(KERNEL_TARGET),$(KERNEL_FLAGS)) -p tessera-kernel -- -D warnings
	@$(call cargo_freestanding,clippy,$(KERNEL_TARGET),$(GUEST_FLAGS)) $(GUEST_PACKAGES) -- -D warnings
	@$(call cargo_freestanding,clippy,$(SERVER_TARGET),) $(SERVER_PACKAGES) -- -D warnings
	@$(call cargo_freestanding,clippy,$(VMM_TARGET),) -p tessera-vmm -- -D warnings

# nextest runs tests side by side and says what hung; cargo's own runner is enough where it is not installed.
web-lint: $(WEB)/node_modules/.installed
	$(call say,Checking the Host Client)
	@cd $(WEB) && npx --no-install tsc --noEmit && npx --no-install biome check . ../../tests/web

web-unit: $(WEB)/node_modules/.installed
	$(call say,Running the unit tests of the Host Client)
	@cd $(WEB) && npx --no-install vitest run --reporter=dot

unit: web-unit ## Run the tests that need no machine
	$(call say,Running the unit and property tests)
	@if cargo nextest --version >/dev/null 2>&1; then cargo nextest run --workspace $(FREESTANDING_ONLY) --no-fail-fast --status-level fail; \
		else cargo test --workspace $(FREESTANDING_ONLY) --no-fail-fast --quiet; fi

test-power-cuts: ## Cut the power in 100,000 random histories of a datastore (HISTORIES=NUMBER, FIRST=SEED)
	$(call say,Cutting the power)
	@$(HOST_CARGO) test --release -q -p tessera-datastore --test histories -- --ignored --nocapture

test-storage-long: image ## Kill the storage server 100 times under load, and cut the power of the whole machine 20 times
	$(call say,Running the long tests of storage)
	@$(HOST_CARGO) build --release -p tessera-tests
	@TESSERA_LONG=1 TESSERA_WATCHDOG_FACTOR=10 $(HOST_BIN)/system-tests --machine qemu datastore/power-cuts guest-disk/kill-storage

system-tests: image ## Boot the system in emulated machines and speak to it (ONLY=NAME for a part, ONLY='--machine bochs' for one emulator)
	$(call say,Running the whole-system tests)
	@$(HOST_CARGO) build --release -p tessera-tests -p tessera-cli
	@$(HOST_BIN)/system-tests $(ONLY)

test-bochs-long: image ## All that runs on Bochs, also the guests that take minutes there
	$(call say,Running all tests on Bochs)
	@$(HOST_CARGO) build --release -p tessera-tests
	@TESSERA_BOCHS_ALL=1 TESSERA_WATCHDOG_FACTOR=3 $(HOST_BIN)/system-tests --machine bochs

test-install: image ## Install Debian 13 from its installer in Chromium, by SeaBIOS (an hour and more; FIRMWARE=uefi: by OVMF); pictures in build/test-logs
	@tests/guests/installer.sh $(GUESTS) 13
	$(call say,Installing Debian in Chromium)
	@$(HOST_CARGO) build --release -p tessera-tests
	@TESSERA_WATCHDOG_FACTOR=3 $(HOST_BIN)/system-tests --machine qemu install/$(or $(FIRMWARE),bios)

test-installer: image ## Debian's installer from its ISO in Chromium, by SeaBIOS and by OVMF, up to its first questions; the pictures are in build/test-logs
	@tests/guests/installer.sh $(GUESTS)
	$(call say,Booting the installer in Chromium)
	@$(HOST_CARGO) build --release -p tessera-tests
	@TESSERA_WATCHDOG_FACTOR=3 $(HOST_BIN)/system-tests --machine qemu screen/browser

test-net-long: image ## Kill the network server 100 times under load (TESSERA_KILLS=NUMBER)
	$(call say,Killing the network server)
	@$(HOST_CARGO) build --release -p tessera-tests
	@TESSERA_KILLS=$${TESSERA_KILLS:-100} TESSERA_WATCHDOG_FACTOR=10 $(HOST_BIN)/system-tests debian-net/kill-under-load

test-suspend: image ## Suspend and resume a machine 100 times under load (TESSERA_SUSPENDS=NUMBER)
	$(call say,Suspending and resuming)
	@$(HOST_CARGO) build --release -p tessera-tests
	@TESSERA_SUSPENDS=$${TESSERA_SUSPENDS:-100} TESSERA_WATCHDOG_FACTOR=10 $(HOST_BIN)/system-tests --machine qemu suspend/go-on

test-browser: image ## Use the Host Client in Chromium on a host in QEMU, with pictures in build/test-logs/browser
	$(call say,Using the Host Client)
	@$(HOST_CARGO) build --release -p tessera-tests
	@$(HOST_BIN)/system-tests --machine qemu management/browser

test-load: image ## Load the host with 500 clients, hostile ones among them, beside a guest that spins
	$(call say,Loading the host)
	@$(HOST_CARGO) build --release -p tessera-tests
	@$(HOST_BIN)/system-tests --machine qemu management/load

test-management-long: image ## Kill hostd (KILLS=100) and cut the power (CUTS=20) during a stream of changes
	$(call say,Killing hostd and cutting the power)
	@$(HOST_CARGO) build --release -p tessera-tests
	@TESSERA_KILLS=$(or $(KILLS),100) TESSERA_CUTS=$(or $(CUTS),20) TESSERA_WATCHDOG_FACTOR=10 $(HOST_BIN)/system-tests --machine qemu management/state

# Schemathesis comes from PyPI into a folder of its own; EXAMPLES are for each operation and role, 120 make more than 50,000 requests.
SCHEMATHESIS = $(BUILD)/schemathesis/bin/schemathesis
EXAMPLES ?= 120
test-api: $(SCHEMATHESIS) ## Hold the API to its description as each role and as nobody (EXAMPLES=120: takes an hour)
	@cargo build -q -p tessera-hostd-dev
	@tests/api/run.py --tool $(abspath $(SCHEMATHESIS)) --server $(abspath $(CARGO_TARGET_DIR)/debug/tessera-hostd-dev) --examples $(EXAMPLES)

$(SCHEMATHESIS):
	$(call say,Fetching Schemathesis)
	@python3 -m venv $(BUILD)/schemathesis
	@$(BUILD)/schemathesis/bin/pip install --quiet 'schemathesis==4.*'

test: setup lint unit system-tests ## Everything that has to hold: setup, lint, unit tests, whole-system tests
	$(call say,All tests passed)

bench: setup image ## Measure (ONLY=PREFIX for a part)
	@$(HOST_CARGO) build --release -p tessera-tests -p tessera-counter
	@$(HOST_BIN)/bench $(if $(ONLY),--only $(ONLY))

clean: ## Remove what was built, except the guests' packages
	@rm -rf $(WEB)/dist $(WEB_PACK) $(CARGO_TARGET_DIR)/release $(CARGO_TARGET_DIR)/debug $(FREESTANDING_TARGET_DIR) $(PROGRAMS) $(IMAGE) $(ISO)
