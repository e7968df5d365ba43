/** What went wrong in a machine. */
import { api } from "../api";
import type { Vm, VmAlarm } from "../api/types";
import { shortTime } from "../format";
import { t, tOr } from "../i18n";
import { refresh } from "../state/inventory";
import { Button, Notice } from "../ui/basic";
import { attempt } from "../ui/dialog";
import { Icon } from "../ui/icon";

const alarmText = (alarm: VmAlarm): string => t(`vm.alarm.${alarm.kind}`, { count: alarm.count });

/** A sign beside the name of a machine that something is wrong with; nothing for others. */
export function AlarmMark({ vm }: { vm: Vm }) {
  if (vm.health !== "yellow" && vm.health !== "red") return null;
  const text = vm.alarms.map(alarmText).join("; ") || tOr("health", vm.health);
  return (
    <span class={`alarmed ${vm.health === "red" ? "danger" : "warn"}`} title={text}>
      <Icon name="warn" small />
      <span class="visually-hidden">{text}</span>
    </span>
  );
}

export function Alarms({ vm }: { vm: Vm }) {
  if (vm.alarms.length === 0) return null;
  const clear = () =>
    void attempt(t("vm.alarmsClear"), async () => {
      await api.clearAlarms(vm.id);
      await refresh("vm");
    });
  return (
    <Notice tone="warn">
      <div class="row spread">
        <ul class="plain">
          {vm.alarms.map((alarm) => (
            <li key={alarm.kind}>
              {alarmText(alarm)} · {shortTime(alarm.time)}
            </li>
          ))}
        </ul>
        <Button icon="check" onClick={clear}>
          {t("vm.alarmsClear")}
        </Button>
      </div>
    </Notice>
  );
}
