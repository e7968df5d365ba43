/** What can be done with machines, for the list and for the page of one alike. */
import { useState } from "preact/hooks";
import { type PowerAction, api } from "../api";
import type { PowerState, Vm } from "../api/types";
import { type MessageKey, t } from "../i18n";
import { go, href } from "../router";
import { refresh } from "../state/inventory";
import type { MenuItem, Tone } from "../ui/basic";
import { FormDialog, ask, attempt, toast } from "../ui/dialog";
import { CheckField, TextField } from "../ui/form";
import type { IconName } from "../ui/icon";

/** Its power, and that its guest sleeps. */
export type ShownState = PowerState | "standby";

export const shownState = (vm: Vm): ShownState => (vm.guestState === "standby" ? "standby" : vm.powerState);

export const POWER_TONES: Record<ShownState, Tone> = { poweredOn: "ok", poweredOff: "off", suspended: "warn", standby: "warn" };

const ACTIONS: Record<PowerAction, { name: MessageKey; icon: IconName; from: ShownState[]; danger?: boolean }> = {
  start: { name: "vm.start", icon: "play", from: ["poweredOff", "standby"] },
  resume: { name: "vm.resume", icon: "play", from: ["suspended"] },
  shutdown: { name: "vm.shutdown", icon: "power", from: ["poweredOn"] },
  stop: { name: "vm.stop", icon: "stop", from: ["poweredOn", "standby", "suspended"], danger: true },
  suspend: { name: "vm.suspend", icon: "pause", from: ["poweredOn", "standby"] },
  reset: { name: "vm.reset", icon: "reset", from: ["poweredOn", "standby"], danger: true },
};

export const can = (action: PowerAction, vm: Vm): boolean => ACTIONS[action].from.includes(shownState(vm));

/** Does it to each; what takes the guest's work from under it is asked first. */
export function power(action: PowerAction, machines: Vm[]): void {
  const which = machines.filter((vm) => can(action, vm));
  const { name, danger } = ACTIONS[action];
  const act = async () => {
    for (const vm of which) await attempt(`${t(name)} ${vm.config.name}`, () => api.power(vm.id, action));
    await Promise.all([refresh("vm"), refresh("task")]);
  };
  if (danger)
    ask({
      title: t(name),
      text: t("vm.powerAsk", { action: t(name), names: which.map((vm) => vm.config.name).join(", ") }),
      submit: t(name),
      danger,
      act,
    });
  else void act();
}

export function removeVms(machines: Vm[], after?: () => void): void {
  ask({
    title: t("vm.delete"),
    text: t("vm.deleteAsk", { names: machines.map((vm) => vm.config.name).join(", ") }),
    submit: t("delete"),
    danger: true,
    act: async () => {
      for (const vm of machines) await api.deleteVm(vm.id);
      await Promise.all([refresh("vm"), refresh("task")]);
      after?.();
    },
  });
}

export function powerItems(machines: Vm[]): MenuItem[] {
  return (Object.keys(ACTIONS) as PowerAction[]).map((action) => ({
    name: t(ACTIONS[action].name),
    icon: ACTIONS[action].icon,
    danger: ACTIONS[action].danger,
    disabled: !machines.some((vm) => can(action, vm)),
    act: () => power(action, machines),
  }));
}

export function openConsole(vm: Vm): void {
  window.open(href("console", vm.id), `console-${vm.id}`, "width=900,height=620");
}

/** A machine's dialogs that its menu opens. */
export type VmDialog = "clone" | "snapshot" | "edit" | "seed";

export function vmItems(vm: Vm, open: (dialog: VmDialog) => void): (MenuItem | "line")[] {
  return [
    ...powerItems([vm]),
    "line",
    { name: t("console.open"), icon: "popout", act: () => openConsole(vm) },
    { name: t("snapshot.take"), icon: "camera", act: () => open("snapshot") },
    { name: t("vm.edit"), icon: "edit", act: () => open("edit") },
    {
      name: t("seed.title"),
      icon: "disc",
      // It goes into the CD drive, which only a firmware looks after, and its image to the first disk's datastore.
      disabled: vm.powerState !== "poweredOff" || vm.config.boot.firmware === "direct" || vm.config.disks.length === 0,
      act: () => open("seed"),
    },
    { name: t("vm.clone"), icon: "copy", act: () => open("clone") },
    "line",
    {
      name: t("vm.delete"),
      icon: "trash",
      danger: true,
      disabled: vm.powerState !== "poweredOff",
      act: () => removeVms([vm], () => go("vms")),
    },
  ];
}

export function CloneVm({ vm, onClose }: { vm: Vm; onClose: () => void }) {
  const [name, setName] = useState(`${vm.config.name}-2`);
  return (
    <FormDialog
      title={t("vm.clone")}
      submit={t("vm.clone")}
      valid={name.trim() !== ""}
      onClose={onClose}
      act={async () => {
        await api.cloneVm(vm.id, name.trim());
        toast("info", t("vm.cloneStarted", { name }));
        await refresh("task");
      }}
    >
      <TextField label={t("name")} value={name} onInput={setName} hint={t("vm.nameHint")} />
    </FormDialog>
  );
}

export function TakeSnapshot({ vm, onClose }: { vm: Vm; onClose: () => void }) {
  const [name, setName] = useState("");
  const [description, setDescription] = useState("");
  const on = vm.powerState !== "poweredOff";
  const runs = vm.powerState === "poweredOn";
  const [withMemory, setWithMemory] = useState(false);
  const [quiesce, setQuiesce] = useState(false);
  return (
    <FormDialog
      title={t("snapshot.take")}
      submit={t("snapshot.take")}
      valid={name.trim() !== ""}
      onClose={onClose}
      act={async () => {
        await api.takeSnapshot(vm.id, {
          name: name.trim(),
          description,
          withMemory: on && withMemory,
          quiesce: runs && !withMemory && quiesce,
        });
        await Promise.all([refresh("task"), refresh("vm")]);
      }}
    >
      <TextField label={t("name")} value={name} onInput={setName} />
      <TextField label={t("description")} value={description} onInput={setDescription} />
      <CheckField
        label={t("snapshot.withMemory")}
        hint={t("snapshot.withMemoryHint")}
        value={on && withMemory}
        disabled={!on}
        onInput={setWithMemory}
      />
      <CheckField
        label={t("snapshot.quiesce")}
        hint={t("snapshot.quiesceHint")}
        value={runs && !withMemory && quiesce}
        disabled={!runs || withMemory}
        onInput={setQuiesce}
      />
    </FormDialog>
  );
}
