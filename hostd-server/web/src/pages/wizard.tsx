/** The New VM wizard: name and guest OS, compute, storage, network, options, summary. */
import type { ComponentChildren } from "preact";
import { useLayoutEffect, useRef, useState } from "preact/hooks";
import { api } from "../api";
import { message } from "../api/client";
import type { DiskController, IncidentAction, NicModel, Seed, Task } from "../api/types";
import { bytes } from "../format";
import { t, tOr } from "../i18n";
import { datastores, host, portGroups, refresh, vms } from "../state/inventory";
import { Button, Facts, Notice } from "../ui/basic";
import { Dialog, attempt, toast } from "../ui/dialog";
import { CheckField, SelectField, SizeField, TextField } from "../ui/form";
import { Icon } from "../ui/icon";
import { FilePicker } from "./file-picker";
import { BootFields, PanicField, WatchdogField } from "./vm-boot";
import { ControllerField, ModelField } from "./vm-devices";
import { FunctionsField } from "./vm-functions";
import { type SeedDraft, SeedFields, emptySeed, seedProblems, toSeed } from "./vm-seed";
import { whole } from "./whole";

const MIB = 1024 * 1024;
const GIB = 1024 * MIB;
export const MOST_VCPUS = 8;
export const GUESTS = ["debian13", "debian12", "debian11", "ubuntu", "fedora", "rhel", "alpine", "linux", "freebsd", "windows", "other"];
const STEPS = ["name", "compute", "storage", "network", "options", "summary"] as const;

interface Disk {
  key: number;
  size: number;
  datastore: string;
  existing: string | null;
  controller: DiskController;
}

export interface Draft {
  name: string;
  guestOs: string;
  vcpus: number;
  memory: number;
  cpuShares: number;
  cpuReservationMhz: number;
  disks: Disk[];
  cdrom: string;
  nics: { key: number; network: string; model: NicModel }[];
  passthrough: string[];
  firmware: "direct" | "bios" | "uefi";
  kernel: string;
  initramfs: string;
  commandLine: string;
  order: string[];
  menuSeconds: number;
  watchdog: IncidentAction;
  onPanic: IncidentAction;
  autostart: boolean;
  notes: string;
  /** For the guest's cloud-init; null: there is none. */
  seed: SeedDraft | null;
}

export const validName = (name: string): boolean => /^[A-Za-z0-9][A-Za-z0-9._-]{0,63}$/.test(name);

/** What is wrong with a step, by field. */
export function problems(draft: Draft, taken: string[]): Record<(typeof STEPS)[number], Record<string, string>> {
  const found: ReturnType<typeof problems> = { name: {}, compute: {}, storage: {}, network: {}, options: {}, summary: {} };
  if (!validName(draft.name.trim())) found.name.name = t("vm.nameHint");
  else if (taken.includes(draft.name.trim())) found.name.name = t("vm.nameTaken");
  if (draft.vcpus < 1 || draft.vcpus > MOST_VCPUS) found.compute.vcpus = t("vm.vcpusRange");
  if (draft.memory < 16 * MIB) found.compute.memory = t("vm.memoryLeast");
  for (const disk of draft.disks) {
    if (!disk.datastore) found.storage[`disk${disk.key}`] = t("datastore.none");
    else if (disk.existing === null && disk.size < MIB) found.storage[`disk${disk.key}`] = t("vm.diskLeast");
    else if (disk.existing === "") found.storage[`disk${disk.key}`] = t("file.choose");
  }
  if (draft.firmware === "direct" && !draft.kernel) found.options.kernel = t("vm.kernelNeeded");
  if (draft.seed && draft.firmware !== "direct") {
    found.options = { ...found.options, ...seedProblems(draft.seed, draft.name.trim()) };
    if (draft.cdrom) found.options.seed = t("seed.driveTaken");
    else if (draft.disks.length === 0) found.options.seed = t("seed.noDisk");
  }
  return found;
}

/** Makes the image for cloud-init as soon as the machine is there. */
async function seedWhenMade({ id }: Task, seed: Seed): Promise<void> {
  await attempt(t("seed.make"), async () => {
    for (;;) {
      const { state, result } = await api.task(id);
      // That it was not created says the task's own failure.
      if (state === "error" || state === "cancelled") return;
      if (state === "success" && result !== null) {
        await api.seedVm(result, seed);
        await Promise.all([refresh("vm"), refresh("task")]);
        return;
      }
      await new Promise((resolve) => setTimeout(resolve, 500));
    }
  });
}

export function NewVm({ onClose }: { onClose: () => void }) {
  const [step, setStep] = useState(0);
  const heading = useRef<HTMLHeadingElement>(null);
  const first = useRef(true);
  // A new step is read from its heading on, and before anybody can see and type into it.
  // biome-ignore lint/correctness/useExhaustiveDependencies: at each step
  useLayoutEffect(() => {
    if (!first.current) heading.current?.focus();
    first.current = false;
  }, [step]);
  const [tried, setTried] = useState(false);
  const [busy, setBusy] = useState(false);
  const [error, setError] = useState<string | null>(null);
  const store = datastores.value[0]?.id ?? "";
  // Guests do not belong where the host itself is managed, if there is another network.
  const group = portGroups.value.find((one) => one.hostInterfaces.length === 0) ?? portGroups.value[0];
  const [draft, setDraft] = useState<Draft>(() => ({
    name: "",
    guestOs: "debian13",
    vcpus: 1,
    memory: 512 * MIB,
    cpuShares: 1000,
    cpuReservationMhz: 0,
    disks: store ? [{ key: 1, size: 8 * GIB, datastore: store, existing: null, controller: "virtio" }] : [],
    cdrom: "",
    nics: group ? [{ key: 1, network: group.id, model: "virtio" }] : [],
    passthrough: [],
    firmware: "bios",
    kernel: "",
    initramfs: "",
    commandLine: "console=ttyS0",
    order: [],
    menuSeconds: 0,
    watchdog: "none",
    onPanic: "none",
    autostart: false,
    notes: "",
    seed: null,
  }));
  const set = (change: Partial<Draft>) => setDraft({ ...draft, ...change });
  const wrong = problems(
    draft,
    vms.value.map((vm) => vm.config.name),
  );
  const ok = (index: number) => Object.keys(wrong[STEPS[index]!]).length === 0;
  const reach = STEPS.findIndex((_, index) => !ok(index));
  const furthest = reach < 0 ? STEPS.length - 1 : reach;
  const told = (field: string): string | null => (tried ? (wrong[STEPS[step]!][field] ?? null) : null);

  const next = async (event: Event) => {
    event.preventDefault();
    if (!ok(step)) return setTried(true);
    setTried(false);
    if (step < STEPS.length - 1) return setStep(step + 1);
    setBusy(true);
    setError(null);
    try {
      const task = await api.createVm({
        name: draft.name.trim(),
        guestOs: draft.guestOs,
        vcpus: draft.vcpus,
        memory: draft.memory,
        cpuShares: draft.cpuShares,
        cpuReservationMhz: draft.cpuReservationMhz,
        cpuLimitMhz: null,
        disks: draft.disks.map(({ size, datastore, existing, controller }) =>
          existing === null ? { datastore, size, controller } : { datastore, path: existing, controller },
        ),
        nics: draft.nics.map(({ network, model }) => ({ network, model })),
        passthrough: draft.passthrough,
        cdrom: draft.cdrom || null,
        boot:
          draft.firmware === "direct"
            ? { firmware: "direct", kernel: draft.kernel, initramfs: draft.initramfs || null, commandLine: draft.commandLine || null }
            : { firmware: draft.firmware, order: draft.order, menuSeconds: draft.menuSeconds },
        watchdog: draft.watchdog,
        onPanic: draft.onPanic,
        autostart: draft.autostart,
        notes: draft.notes,
      });
      if (draft.seed && draft.firmware !== "direct") void seedWhenMade(task, toSeed(draft.seed, draft.name.trim()));
      toast("info", t("vm.creating", { name: draft.name }));
      void Promise.all([refresh("vm"), refresh("task")]);
      onClose();
    } catch (failure) {
      setError(message(failure));
      setBusy(false);
    }
  };

  const nameOf = (list: { id: string; name: string }[], id: string) => list.find((one) => one.id === id)?.name ?? id;
  const pages: Record<(typeof STEPS)[number], () => ComponentChildren> = {
    name: () => (
      <div class="fields">
        <TextField
          full
          label={t("name")}
          value={draft.name}
          onInput={(name) => set({ name })}
          error={told("name")}
          hint={t("vm.nameHint")}
          input={{ autofocus: true, maxLength: 64 }}
        />
        <SelectField
          full
          label={t("vm.guestOs")}
          value={draft.guestOs}
          onInput={(guestOs) => set({ guestOs })}
          options={GUESTS.map((os) => [os, tOr("os", os)])}
          hint={t("vm.guestOsHint")}
        />
        <TextField full label={t("vm.notes")} value={draft.notes} onInput={(notes) => set({ notes })} />
      </div>
    ),
    compute: () => (
      <div class="fields">
        <TextField
          label={t("vm.vcpus")}
          type="number"
          value={String(draft.vcpus)}
          onInput={(text) => set({ vcpus: whole(text) })}
          error={told("vcpus")}
          hint={host.value ? t("vm.hostHas", { count: host.value.hardware.threads }) : undefined}
          input={{ min: 1, max: MOST_VCPUS }}
        />
        <SizeField
          label={t("memory")}
          value={draft.memory}
          onInput={(memory) => set({ memory })}
          error={told("memory")}
          hint={host.value ? t("vm.hostFree", { size: bytes(host.value.usage.memoryCapacity - host.value.usage.memory) }) : undefined}
        />
        <TextField
          label={t("vm.shares")}
          type="number"
          value={String(draft.cpuShares)}
          onInput={(text) => set({ cpuShares: whole(text) })}
          hint={t("vm.sharesHint")}
          input={{ min: 1 }}
        />
        <TextField
          label={t("vm.reservationMhz")}
          type="number"
          value={String(draft.cpuReservationMhz)}
          onInput={(text) => set({ cpuReservationMhz: whole(text) })}
          hint={t("vm.reservationHint")}
          input={{ min: 0 }}
        />
      </div>
    ),
    storage: () => (
      <div class="stack">
        {datastores.value.length === 0 && <Notice tone="warn">{t("vm.noDatastore")}</Notice>}
        {draft.disks.map((disk, index) => {
          const change = (what: Partial<Disk>) => set({ disks: draft.disks.map((one) => (one === disk ? { ...disk, ...what } : one)) });
          const name = t("vm.diskNumber", { number: index + 1 });
          return (
            <fieldset class="card" key={disk.key} style={{ padding: "14px" }}>
              <legend class="visually-hidden">{name}</legend>
              <div class="row spread" style={{ marginBottom: "10px" }}>
                <strong class="row">
                  <Icon name="disk" />
                  {name}
                </strong>
                <Button
                  icon="trash"
                  kind="plain"
                  label={t("remove.named", { name })}
                  onClick={() => set({ disks: draft.disks.filter((one) => one !== disk) })}
                />
              </div>
              <div class="fields">
                <SelectField
                  label={t("vm.diskSource")}
                  value={disk.existing === null ? "new" : "existing"}
                  onInput={(source) => change({ existing: source === "new" ? null : "" })}
                  options={[
                    ["new", t("vm.diskNew")],
                    ["existing", t("vm.diskExisting")],
                  ]}
                />
                {disk.existing === null ? (
                  <>
                    <SizeField label={t("size")} value={disk.size} onInput={(size) => change({ size })} error={told(`disk${disk.key}`)} />
                    <SelectField
                      label={t("datastore")}
                      value={disk.datastore}
                      onInput={(datastore) => change({ datastore })}
                      options={datastores.value.map((one) => [one.id, `${one.name} (${t("freeOnly", { size: bytes(one.free) })})`])}
                    />
                  </>
                ) : (
                  <FilePicker
                    label={t("file")}
                    kinds={["disk", "file"]}
                    value={disk.existing}
                    onPick={(existing, datastore) => change({ existing, datastore: datastore ?? disk.datastore })}
                    error={told(`disk${disk.key}`)}
                    bare
                  />
                )}
                <ControllerField number={index + 1} value={disk.controller} onInput={(controller) => change({ controller })} />
              </div>
            </fieldset>
          );
        })}
        <div class="row">
          <Button
            icon="plus"
            disabled={datastores.value.length === 0}
            onClick={() =>
              set({
                disks: [
                  ...draft.disks,
                  {
                    key: Math.max(0, ...draft.disks.map((disk) => disk.key)) + 1,
                    size: 8 * GIB,
                    datastore: store,
                    existing: null,
                    controller: "virtio",
                  },
                ],
              })
            }
          >
            {t("vm.addDisk")}
          </Button>
        </div>
        <FilePicker
          label={t("vm.cdromIso")}
          kinds={["iso"]}
          value={draft.cdrom}
          onPick={(cdrom) => set({ cdrom })}
          hint={t("vm.cdromHint")}
        />
      </div>
    ),
    network: () => (
      <div class="stack">
        {portGroups.value.length === 0 && <Notice tone="warn">{t("vm.noNetwork")}</Notice>}
        {draft.nics.map((nic, index) => {
          const change = (what: Partial<typeof nic>) => set({ nics: draft.nics.map((one) => (one === nic ? { ...nic, ...what } : one)) });
          const name = t("vm.nicNumber", { number: index + 1 });
          return (
            <div class="row" key={nic.key} style={{ alignItems: "flex-end" }}>
              <div class="grow">
                <SelectField
                  label={name}
                  value={nic.network}
                  onInput={(network) => change({ network })}
                  options={portGroups.value.map((group) => [group.id, group.vlan ? `${group.name} (VLAN ${group.vlan})` : group.name])}
                />
              </div>
              <ModelField number={index + 1} value={nic.model} onInput={(model) => change({ model })} />
              <Button
                icon="trash"
                label={t("remove.named", { name })}
                onClick={() => set({ nics: draft.nics.filter((one) => one !== nic) })}
              />
            </div>
          );
        })}
        <div>
          <Button
            icon="plus"
            disabled={portGroups.value.length === 0}
            onClick={() =>
              set({
                nics: [
                  ...draft.nics,
                  { key: Math.max(0, ...draft.nics.map((nic) => nic.key)) + 1, network: portGroups.value[0]!.id, model: "virtio" },
                ],
              })
            }
          >
            {t("vm.addNic")}
          </Button>
        </div>
      </div>
    ),
    options: () => (
      <div class="stack">
        <fieldset>
          <legend>{t("vm.boot")}</legend>
          <div class="stack small">
            {(["bios", "uefi", "direct"] as const).map((firmware) => (
              <label class="choice" key={firmware}>
                <input type="radio" name="firmware" checked={draft.firmware === firmware} onChange={() => set({ firmware })} />
                <span>
                  <strong>{t(`vm.boot.${firmware}`)}</strong>
                  <br />
                  <span class="muted">{t(`vm.boot.${firmware}Text`)}</span>
                </span>
              </label>
            ))}
          </div>
        </fieldset>
        {draft.firmware === "direct" && (
          <div class="fields">
            <FilePicker
              label={t("vm.kernel")}
              kinds={["kernel", "file"]}
              value={draft.kernel}
              onPick={(kernel) => set({ kernel })}
              error={told("kernel")}
            />
            <FilePicker
              label={t("vm.initramfs")}
              kinds={["kernel", "file"]}
              value={draft.initramfs}
              onPick={(initramfs) => set({ initramfs })}
            />
            <TextField full label={t("vm.commandLine")} value={draft.commandLine} onInput={(commandLine) => set({ commandLine })} />
          </div>
        )}
        <div class="fields">
          <BootFields
            boot={{ firmware: draft.firmware, order: draft.order, menuSeconds: draft.menuSeconds }}
            onChange={({ order, menuSeconds }) => set({ order: order ?? [], menuSeconds: menuSeconds ?? 0 })}
          />
          <WatchdogField value={draft.watchdog} onInput={(watchdog) => set({ watchdog })} />
          <PanicField value={draft.onPanic} onInput={(onPanic) => set({ onPanic })} />
        </div>
        <FunctionsField own={draft.name.trim()} value={draft.passthrough} onInput={(passthrough) => set({ passthrough })} />
        <CheckField label={t("vm.autostartLabel")} value={draft.autostart} onInput={(autostart) => set({ autostart })} />
        {draft.firmware !== "direct" && (
          <CheckField
            label={t("seed.use")}
            hint={t("seed.text")}
            value={draft.seed !== null}
            onInput={(wanted) => set({ seed: wanted ? emptySeed : null })}
          />
        )}
        {draft.firmware !== "direct" && draft.seed && (
          <fieldset class="card" style={{ padding: "14px" }}>
            <legend class="visually-hidden">{t("seed.title")}</legend>
            {told("seed") && <Notice tone="danger">{told("seed")}</Notice>}
            <SeedFields
              draft={draft.seed}
              name={draft.name.trim()}
              onChange={(seed) => set({ seed })}
              problems={tried ? wrong.options : {}}
            />
          </fieldset>
        )}
      </div>
    ),
    summary: () => (
      <div class="stack">
        {error && <Notice tone="danger">{error}</Notice>}
        <Facts
          items={[
            [t("name"), draft.name],
            [t("vm.guestOs"), tOr("os", draft.guestOs)],
            [t("cpu"), t("vm.vcpuCount", { count: draft.vcpus })],
            [t("memory"), bytes(draft.memory)],
            [
              t("vm.disks"),
              draft.disks
                .map(
                  (disk) =>
                    `${disk.existing ?? bytes(disk.size)} [${nameOf(datastores.value, disk.datastore)}] ${t(`vm.controller.${disk.controller}`)}`,
                )
                .join(", ") || "–",
            ],
            [t("vm.cdrom"), draft.cdrom || "–"],
            [
              t("nav.networking"),
              draft.nics.map((nic) => `${nameOf(portGroups.value, nic.network)} ${t(`vm.model.${nic.model}`)}`).join(", ") || "–",
            ],
            [t("vm.functions"), draft.passthrough.join(", ") || "–"],
            [
              t("vm.boot"),
              draft.firmware === "direct" ? [draft.kernel, draft.initramfs].filter(Boolean).join(" + ") : t(`vm.boot.${draft.firmware}`),
            ],
            ...(draft.firmware === "direct" ? [[t("vm.commandLine"), draft.commandLine || "–"] as [string, string]] : []),
            [t("vm.autostart"), draft.autostart ? t("yes") : t("no")],
            ...(draft.firmware === "direct" ? [] : [[t("seed.title"), draft.seed ? t("yes") : t("no")] as [string, string]]),
          ]}
        />
      </div>
    ),
  };
  const current = STEPS[step]!;
  return (
    <Dialog
      wide
      title={t("vm.new")}
      onClose={onClose}
      footer={
        <>
          <Button onClick={onClose}>{t("cancel")}</Button>
          <Button disabled={step === 0} onClick={() => setStep(step - 1)}>
            {t("back")}
          </Button>
          <button type="submit" form="new-vm" class="button primary" disabled={busy}>
            {step === STEPS.length - 1 ? t("finish") : t("next")}
          </button>
        </>
      }
    >
      <div class="wizard">
        <nav class="steps" aria-label={t("wizard.steps")}>
          <ol>
            {STEPS.map((name, index) => (
              <li key={name} class={index < step ? "done" : ""}>
                <button
                  type="button"
                  aria-current={index === step ? "step" : undefined}
                  disabled={index > furthest}
                  onClick={() => setStep(index)}
                >
                  <span class="no">{index < step ? <Icon name="check" small /> : index + 1}</span>
                  <span class="name">{t(`wizard.${name}`)}</span>
                </button>
              </li>
            ))}
          </ol>
        </nav>
        <form id="new-vm" class="page" onSubmit={(event) => void next(event)} noValidate>
          <h3 ref={heading} tabIndex={-1}>
            {t(`wizard.${current}`)}
          </h3>
          <p>{t(`wizard.${current}Text`)}</p>
          {pages[current]()}
        </form>
      </div>
    </Dialog>
  );
}
