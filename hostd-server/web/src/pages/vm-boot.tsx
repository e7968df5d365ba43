/** What a machine's firmware boots from, and what happens when something goes wrong in its guest. */
import type { Boot, IncidentAction } from "../api/types";
import { type MessageKey, t } from "../i18n";
import { SelectField, TextField } from "../ui/form";
import { whole } from "./whole";

/** Orders that can be chosen; others can be set through the API, and stay. */
const ORDERS: [string, MessageKey][] = [
  ["", "vm.order.firmware"],
  ["cdrom,disk", "vm.order.cdrom"],
  ["disk,cdrom", "vm.order.disk"],
  ["nic,disk", "vm.order.nic"],
];
const ACTIONS: IncidentAction[] = ["none", "reset", "powerOff"];

export const orderOf = (boot: Boot): string => (boot.order ?? []).join(",");

/** What an order is called. */
export function orderName(boot: Boot): string {
  const own = orderOf(boot);
  const known = ORDERS.find(([order]) => order === own);
  return known ? t(known[1]) : own.replaceAll(",", ", ");
}

export function BootFields({ boot, onChange }: { boot: Boot; onChange: (boot: Boot) => void }) {
  if (boot.firmware === "direct") return null;
  const own = orderOf(boot);
  const options = ORDERS.map(([order, name]) => [order, t(name)] as [string, string]);
  if (!ORDERS.some(([order]) => order === own)) options.push([own, orderName(boot)]);
  return (
    <>
      <SelectField
        label={t("vm.order")}
        value={own}
        onInput={(order) => onChange({ ...boot, order: order ? order.split(",") : [] })}
        options={options}
      />
      <TextField
        label={t("vm.bootMenu")}
        hint={t("vm.bootMenuHint")}
        type="number"
        value={String(boot.menuSeconds ?? 0)}
        onInput={(text) => onChange({ ...boot, menuSeconds: Math.min(60, whole(text)) })}
        input={{ min: 0, max: 60 }}
      />
    </>
  );
}

interface Choice {
  value: IncidentAction;
  onInput: (action: IncidentAction) => void;
}

/** What a watchdog does, in words. */
export const watchdogName = (action: IncidentAction): string => (action === "none" ? t("vm.watchdog.none") : t(`vm.incident.${action}`));

export function WatchdogField({ value, onInput }: Choice) {
  return (
    <SelectField
      label={t("vm.watchdog")}
      hint={t("vm.watchdogHint")}
      value={value}
      onInput={(action) => onInput(action as IncidentAction)}
      options={ACTIONS.map((action) => [action, watchdogName(action)])}
    />
  );
}

export function PanicField({ value, onInput }: Choice) {
  return (
    <SelectField
      label={t("vm.onPanic")}
      hint={t("vm.onPanicHint")}
      value={value}
      onInput={(action) => onInput(action as IncidentAction)}
      options={ACTIONS.map((action) => [action, t(`vm.incident.${action}`)])}
    />
  );
}
