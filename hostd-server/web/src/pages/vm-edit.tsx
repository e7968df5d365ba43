/** Changing a machine. The change is made from the version that was read: somebody else's change in between is told, not lost. */
import { useEffect, useState } from "preact/hooks";
import { api } from "../api";
import { ApiError, message } from "../api/client";
import type { VmConfig, VmDisk, VmNic, VmPatch } from "../api/types";
import { t } from "../i18n";
import { datastores, portGroups, refresh } from "../state/inventory";
import { Button, Notice, Spinner } from "../ui/basic";
import { Dialog, FormDialog } from "../ui/dialog";
import { CheckField, SelectField, SizeField, TextField } from "../ui/form";
import { FilePicker } from "./file-picker";
import { BootFields, PanicField, WatchdogField } from "./vm-boot";
import { ControllerField, ModelField } from "./vm-devices";
import { FunctionsField } from "./vm-functions";
import { whole } from "./whole";

/** What is new has no number yet: the host gives it one. */
const isNew = (id: string): boolean => id.startsWith("new-");

/** The change as the host takes it. */
export function toPatch({ disks, nics, ...rest }: Partial<VmConfig>): VmPatch {
  return {
    ...rest,
    ...(disks && {
      disks: disks.map(({ id, datastore, path, size, controller }) =>
        isNew(id) ? { datastore, size, controller } : { id, datastore, path, size, controller },
      ),
    }),
    ...(nics && {
      nics: nics.map(({ id, network, mac, connected, model }) =>
        isNew(id) ? { network, connected, model } : { id, network, mac, connected, model },
      ),
    }),
  };
}

export function EditVm({ id, onClose }: { id: string; onClose: () => void }) {
  const [read, setRead] = useState<{ config: VmConfig; etag: string | null; on: boolean } | null>(null);
  const [edit, setEdit] = useState<VmConfig | null>(null);
  const [error, setError] = useState<string | null>(null);
  useEffect(() => {
    api.vm(id).then(
      ({ data, etag }) => {
        setRead({ config: data.config, etag, on: data.powerState !== "poweredOff" });
        setEdit(data.config);
      },
      (failure) => setError(message(failure)),
    );
  }, [id]);
  if (!read || !edit)
    return (
      <Dialog title={t("vm.edit")} onClose={onClose}>
        <div class="body">{error ? <Notice tone="danger">{error}</Notice> : <Spinner />}</div>
      </Dialog>
    );
  const set = (change: Partial<VmConfig>) => setEdit({ ...edit, ...change });
  const changed = Object.fromEntries(
    Object.entries(edit).filter(([key, value]) => JSON.stringify(value) !== JSON.stringify(read.config[key as keyof VmConfig])),
  ) as Partial<VmConfig>;
  return (
    <FormDialog
      title={t("vm.editOf", { name: read.config.name })}
      submit={t("save")}
      valid={Object.keys(changed).length > 0 && edit.name.trim() !== "" && edit.vcpus > 0 && edit.memory > 0}
      onClose={onClose}
      act={async () => {
        try {
          await api.editVm(id, toPatch(changed), read.etag);
        } catch (failure) {
          if (failure instanceof ApiError && failure.status === 412) throw new Error(t("error.changedMeanwhile"));
          throw failure;
        }
        await Promise.all([refresh("vm"), refresh("task")]);
      }}
    >
      {read.on && <Notice>{t("vm.editOn")}</Notice>}
      <fieldset class="stack" disabled={read.on}>
        <div class="fields">
          <TextField full label={t("name")} value={edit.name} onInput={(name) => set({ name })} />
          <TextField
            label={t("vm.vcpus")}
            type="number"
            value={String(edit.vcpus)}
            onInput={(text) => set({ vcpus: whole(text) })}
            input={{ min: 1, max: 4 }}
          />
          <SizeField label={t("memory")} value={edit.memory} onInput={(memory) => set({ memory })} />
          <TextField
            label={t("vm.shares")}
            hint={t("vm.sharesHint")}
            type="number"
            value={String(edit.cpuShares)}
            onInput={(text) => set({ cpuShares: whole(text) })}
            input={{ min: 1 }}
          />
          <TextField
            label={t("vm.reservationMhz")}
            type="number"
            value={String(edit.cpuReservationMhz)}
            onInput={(text) => set({ cpuReservationMhz: whole(text) })}
            input={{ min: 0 }}
          />
          <TextField
            label={t("vm.limitMhz")}
            hint={t("vm.limitHint")}
            type="number"
            value={edit.cpuLimitMhz == null ? "" : String(edit.cpuLimitMhz)}
            onInput={(text) => set({ cpuLimitMhz: text ? whole(text) : null })}
            input={{ min: 0 }}
          />
          {edit.boot.firmware === "direct" && (
            <TextField
              full
              label={t("vm.commandLine")}
              value={edit.boot.commandLine ?? ""}
              onInput={(commandLine) => set({ boot: { ...edit.boot, commandLine } })}
            />
          )}
          {edit.boot.firmware !== "direct" && (
            <SelectField
              label={t("vm.boot")}
              value={edit.boot.firmware}
              onInput={(firmware) => set({ boot: { ...edit.boot, firmware: firmware as "bios" | "uefi" } })}
              options={[
                ["bios", t("vm.boot.bios")],
                ["uefi", t("vm.boot.uefi")],
              ]}
            />
          )}
          <BootFields boot={edit.boot} onChange={(boot) => set({ boot })} />
          <WatchdogField value={edit.watchdog} onInput={(watchdog) => set({ watchdog })} />
        </div>
        <fieldset>
          <legend>{t("vm.disks")}</legend>
          <div class="stack small">
            {edit.disks.map((disk, index) => {
              const change = (what: Partial<VmDisk>) =>
                set({ disks: edit.disks.map((one) => (one === disk ? { ...disk, ...what } : one)) });
              const name = t("vm.diskNumber", { number: index + 1 });
              const before = read.config.disks.find((one) => one.id === disk.id);
              return (
                <div class="row" key={disk.id} style={{ alignItems: "flex-end" }}>
                  <div class="grow">
                    <SizeField
                      label={name}
                      value={disk.size}
                      error={before && disk.size < before.size ? t("vm.diskShrink") : null}
                      onInput={(size) => change({ size })}
                    />
                  </div>
                  <ControllerField number={index + 1} value={disk.controller} onInput={(controller) => change({ controller })} />
                  <Button
                    icon="trash"
                    label={t("remove.named", { name })}
                    onClick={() => set({ disks: edit.disks.filter((one) => one !== disk) })}
                  />
                </div>
              );
            })}
            <div>
              <Button
                icon="plus"
                disabled={datastores.value.length === 0}
                onClick={() =>
                  set({
                    disks: [
                      ...edit.disks,
                      { id: `new-${Date.now()}`, datastore: datastores.value[0]!.id, path: "", size: 8 * 1024 ** 3, controller: "virtio" },
                    ],
                  })
                }
              >
                {t("vm.addDisk")}
              </Button>
            </div>
          </div>
        </fieldset>
        <fieldset>
          <legend>{t("nav.networking")}</legend>
          <div class="stack small">
            {edit.nics.map((nic, index) => {
              const change = (what: Partial<VmNic>) => set({ nics: edit.nics.map((one) => (one === nic ? { ...nic, ...what } : one)) });
              return (
                <div class="row" key={nic.id} style={{ alignItems: "flex-end" }}>
                  <div class="grow">
                    <SelectField
                      label={t("vm.nicNumber", { number: index + 1 })}
                      value={nic.network}
                      onInput={(network) => change({ network })}
                      options={portGroups.value.map((group) => [group.id, group.name])}
                    />
                  </div>
                  <ModelField number={index + 1} value={nic.model} onInput={(model) => change({ model })} />
                  <Button
                    icon="trash"
                    label={t("remove.named", { name: t("vm.nicNumber", { number: index + 1 }) })}
                    onClick={() => set({ nics: edit.nics.filter((one) => one !== nic) })}
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
                    nics: [...edit.nics, { id: `new-${Date.now()}`, network: portGroups.value[0]!.id, connected: true, model: "virtio" }],
                  })
                }
              >
                {t("vm.addNic")}
              </Button>
            </div>
          </div>
        </fieldset>
        <FunctionsField own={read.config.name} value={edit.passthrough} onInput={(passthrough) => set({ passthrough })} />
      </fieldset>
      {edit.boot.firmware !== "direct" && (
        <FilePicker
          label={t("vm.cdromIso")}
          kinds={["iso"]}
          hint={t("vm.cdromHint")}
          value={edit.cdrom ?? ""}
          onPick={(cdrom) => set({ cdrom: cdrom || null })}
        />
      )}
      <PanicField value={edit.onPanic} onInput={(onPanic) => set({ onPanic })} />
      <TextField full label={t("vm.notes")} value={edit.notes} onInput={(notes) => set({ notes })} />
      <CheckField label={t("vm.autostartLabel")} value={edit.autostart} onInput={(autostart) => set({ autostart })} />
    </FormDialog>
  );
}
