/** What went wrong in a machine. */
import { api } from "../api";
import type { Vm } from "../api/types";
import { shortTime } from "../format";
import { t } from "../i18n";
import { refresh } from "../state/inventory";
import { Button, Notice } from "../ui/basic";
import { attempt } from "../ui/dialog";

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
              {t(`vm.alarm.${alarm.kind}`, { count: alarm.count })} · {shortTime(alarm.time)}
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
