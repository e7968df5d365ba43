/** The host at a glance: its load, what it is made of, what runs on it. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { may } from "../api/client";
import type { Health } from "../api/types";
import { bytes, dateTime, mhz, number, span } from "../format";
import { TASK_TONES } from "../frame/tasks";
import { t, tOr } from "../i18n";
import { href } from "../router";
import { datastores, history, host, refresh, taskName, tasks, vms } from "../state/inventory";
import { Badge, Button, Card, Empty, Facts, Menu, Meter, Notice, PageHead, Spinner, type Tone } from "../ui/basic";
import { ask, attempt, toast } from "../ui/dialog";
import { Gauge, Sparkline } from "../ui/gauge";
import { Icon } from "../ui/icon";
import { NewVm } from "./wizard";

export const HEALTH_TONES: Record<Health, Tone> = { green: "ok", yellow: "warn", red: "danger", gray: "off" };

export function powerOff(action: "reboot" | "shutdown") {
  const running = vms.value.filter((vm) => vm.powerState === "poweredOn").length;
  ask({
    title: t(action === "reboot" ? "host.reboot" : "host.shutdown"),
    text: running > 0 ? t("host.powerRunning", { count: running }) : t("host.powerNone"),
    submit: t(action === "reboot" ? "host.reboot" : "host.shutdown"),
    danger: true,
    act: () => api.hostPower(action),
  });
}

export function Overview() {
  const [making, setMaking] = useState(false);
  const it = host.value;
  if (!it) return <Spinner />;
  const on = vms.value.filter((vm) => vm.powerState === "poweredOn");
  const busiest = [...on].sort((a, b) => b.usage.cpuMhz - a.usage.cpuMhz).slice(0, 5);
  const { usage, hardware } = it;
  return (
    <>
      <PageHead
        icon="host"
        title={it.name}
        sub={
          <>
            <Badge tone={HEALTH_TONES[it.health]} dot>
              {tOr("health", it.health)}
            </Badge>
            {it.maintenanceMode && <Badge tone="warn">{t("host.inMaintenance")}</Badge>}
            {it.lockdownMode && <Badge tone="warn">{t("host.inLockdown")}</Badge>}
            <span>
              {it.product.name} {it.product.version}
            </span>
          </>
        }
        actions={
          <>
            <Button kind="primary" icon="plus" disabled={!may("VirtualMachine.Create")} onClick={() => setMaking(true)}>
              {t("vm.new")}
            </Button>
            <Button icon="refresh" onClick={() => void Promise.all(["host", "vm", "datastore", "task"].map(refresh))}>
              {t("refresh")}
            </Button>
            <Menu
              label={t("host.actions")}
              items={[
                {
                  name: t(it.maintenanceMode ? "host.leaveMaintenance" : "host.enterMaintenance"),
                  icon: "manage",
                  act: () =>
                    void attempt(t("host.enterMaintenance"), () => api.maintenance(!it.maintenanceMode)).then(() => refresh("host")),
                },
                {
                  name: t("support.make"),
                  icon: "bundle",
                  act: () =>
                    void attempt(t("support.make"), async () => {
                      await api.supportBundle();
                      toast("info", t("support.started"));
                    }),
                },
                "line",
                { name: t("host.reboot"), icon: "reset", danger: true, disabled: !may("Host.Power"), act: () => powerOff("reboot") },
                { name: t("host.shutdown"), icon: "power", danger: true, disabled: !may("Host.Power"), act: () => powerOff("shutdown") },
              ]}
            >
              <Icon name="more" small />
              {t("actions")}
            </Menu>
          </>
        }
      />
      <div class="grid">
        {!it.statePersistent && <Notice tone="warn">{t("host.notKept")}</Notice>}
        <Card title={t("host.load")} class="w8">
          <div style={{ display: "grid", gridTemplateColumns: "repeat(auto-fit, minmax(96px, 1fr))", gap: "20px" }}>
            <Gauge
              name={t("cpu")}
              used={usage.cpuMhz}
              total={usage.cpuCapacityMhz}
              text={mhz(usage.cpuMhz)}
              sub={t("of", { total: mhz(usage.cpuCapacityMhz) })}
            />
            <Gauge
              name={t("memory")}
              used={usage.memory}
              total={usage.memoryCapacity}
              text={bytes(usage.memory)}
              sub={t("of", { total: bytes(usage.memoryCapacity) })}
            />
            <Gauge
              name={t("storage")}
              used={usage.storage}
              total={usage.storageCapacity}
              text={bytes(usage.storage)}
              sub={t("of", { total: bytes(usage.storageCapacity) })}
            />
          </div>
          <div style={{ display: "grid", gridTemplateColumns: "1fr 1fr", gap: "20px", marginTop: "18px" }}>
            <div>
              <div class="row spread muted">
                <span>{t("cpu")}</span>
                <span class="num">{mhz(usage.cpuMhz)}</span>
              </div>
              <Sparkline values={history.value.cpu} max={usage.cpuCapacityMhz / 4} />
            </div>
            <div>
              <div class="row spread muted">
                <span>{t("memory")}</span>
                <span class="num">{bytes(usage.memory)}</span>
              </div>
              <Sparkline values={history.value.memory} max={usage.memoryCapacity} colour="var(--series-2)" />
            </div>
          </div>
        </Card>
        <Card title={t("hardware")} class="w4">
          <Facts
            items={[
              [t("hardware.machine"), [hardware.vendor, hardware.model].filter(Boolean).join(" ") || "–"],
              [t("hardware.processor"), hardware.cpuModel],
              [
                t("hardware.processors"),
                t("hardware.cores", { sockets: hardware.sockets, cores: hardware.cores, threads: hardware.threads }),
              ],
              [t("hardware.virtualization"), hardware.virtualization],
              [t("memory"), bytes(hardware.memory)],
              [t("host.uptime"), span(it.uptimeSeconds)],
              [t("host.time"), dateTime(it.time)],
              [
                t("host.addresses"),
                it.managementAddresses.length > 0 ? it.managementAddresses.map((address) => <div key={address}>{address}</div>) : "–",
              ],
            ]}
          />
        </Card>
        <Card
          title={t("nav.vms")}
          class="w4"
          actions={
            <a href="#/vms" class="nowrap">
              {t("all")}
            </a>
          }
        >
          <div class="stack">
            <div class="row spread" style={{ textAlign: "center" }}>
              {[
                [on.length, t("power.poweredOn"), "ok"],
                [vms.value.filter((vm) => vm.powerState === "suspended").length, t("power.suspended"), "warn"],
                [vms.value.filter((vm) => vm.powerState === "poweredOff").length, t("power.poweredOff"), ""],
              ].map(([count, name, tone]) => (
                <div key={name} class="grow">
                  <div style={{ fontSize: "26px", fontWeight: 650 }} class="num">
                    {number(count as number)}
                  </div>
                  <div class="row tight muted" style={{ justifyContent: "center" }}>
                    <span class={`dot ${tone}`} />
                    {name}
                  </div>
                </div>
              ))}
            </div>
            {busiest.map((vm) => (
              <Meter
                key={vm.id}
                name={<a href={href("vms", vm.id)}>{vm.config.name}</a>}
                used={vm.usage.cpuMhz}
                total={(usage.cpuCapacityMhz / Math.max(1, hardware.threads)) * vm.config.vcpus}
                text={mhz(vm.usage.cpuMhz)}
              />
            ))}
            {vms.value.length === 0 && (
              <Empty icon="vm" title={t("vm.none")}>
                <Button kind="primary" icon="plus" disabled={!may("VirtualMachine.Create")} onClick={() => setMaking(true)}>
                  {t("vm.new")}
                </Button>
              </Empty>
            )}
          </div>
        </Card>
        <Card title={t("nav.storage")} class="w4" actions={<a href="#/storage">{t("all")}</a>}>
          <div class="stack">
            {datastores.value.map((datastore) => (
              <Meter
                key={datastore.id}
                name={<a href={href("storage", "datastores", datastore.id)}>{datastore.name}</a>}
                used={datastore.capacity - datastore.free}
                total={datastore.capacity}
                text={t("free", { size: bytes(datastore.free), total: bytes(datastore.capacity) })}
              />
            ))}
            {datastores.value.length === 0 && <Empty icon="storage" title={t("datastore.none")} />}
          </div>
        </Card>
        <Card title={t("tasks.recent")} class="w4" actions={<a href="#/monitor/tasks">{t("all")}</a>}>
          <ul class="stack small">
            {tasks.value.slice(0, 6).map((task) => (
              <li key={task.id} class="row spread" style={{ flexWrap: "nowrap" }}>
                <span class="ellipsis">
                  {taskName(task)} <span class="muted">{task.targetName}</span>
                </span>
                <Badge tone={TASK_TONES[task.state]}>{tOr("taskState", task.state)}</Badge>
              </li>
            ))}
            {tasks.value.length === 0 && <Empty icon="tasks" title={t("tasks.none")} />}
          </ul>
        </Card>
      </div>
      {making && <NewVm onClose={() => setMaking(false)} />}
    </>
  );
}
