/** One machine. */
import type { ComponentType } from "preact";
import { useEffect, useState } from "preact/hooks";
import type { Vm } from "../api/types";
import { bytes, mhz, span } from "../format";
import { eventColumns } from "../frame/tasks";
import { t, tOr } from "../i18n";
import { path, href } from "../router";
import { events, datastores, host, portGroups, vmById, vmsLoaded } from "../state/inventory";
import { Badge, Button, Card, Empty, Facts, Menu, PageHead, Spinner, Tabs } from "../ui/basic";
import { Gauge } from "../ui/gauge";
import { Icon } from "../ui/icon";
import { Table } from "../ui/table";
import { Thumbnail } from "../ui/thumbnail";
import { HEALTH_TONES } from "./overview";
import { Performance } from "./performance";
import { Snapshots } from "./snapshots";
import { CloneVm, POWER_TONES, TakeSnapshot, type VmDialog, can, power, shownState, vmItems } from "./vm-actions";
import { Alarms } from "./vm-alarms";
import { orderName, watchdogName } from "./vm-boot";
import { EditVm } from "./vm-edit";
import { Medium } from "./vm-media";
import { SeedVm } from "./vm-seed";

const TABS = ["summary", "screen", "console", "performance", "snapshots", "events"] as const;

function Console({ vm }: { vm: Vm }) {
  const [View, setView] = useState<ComponentType<{ vm: Vm }> | null>(null);
  useEffect(() => {
    void import("./console").then((module) => setView(() => module.ConsoleCard));
  }, []);
  return View ? <View vm={vm} /> : <Spinner />;
}

function Screen({ vm }: { vm: Vm }) {
  const [View, setView] = useState<ComponentType<{ vm: Vm }> | null>(null);
  useEffect(() => {
    void import("./screen").then((module) => setView(() => module.ScreenCard));
  }, []);
  return View ? <View vm={vm} /> : <Spinner />;
}

function Summary({ vm }: { vm: Vm }) {
  const { config } = vm;
  const named = (list: { id: string; name: string }[], id: string) => list.find((one) => one.id === id)?.name ?? id;
  const it = host.value;
  const each = it ? it.usage.cpuCapacityMhz / Math.max(1, it.hardware.threads) : 0;
  const on = vm.powerState === "poweredOn";
  return (
    <div class="grid">
      <Card title={t("vm.about")} class="w7">
        <Facts
          items={[
            ...(on
              ? [[t("screen.title"), <Thumbnail key="s" vm={vm} divisor={4} width={180} />] as [string, preact.ComponentChildren]]
              : []),
            [t("vm.guestOs"), tOr("os", config.guestOs)],
            [t("vm.address"), vm.addresses.join(", ") || "–"],
            [t("host.uptime"), on ? span(vm.usage.uptimeSeconds) : "–"],
            [
              t("vm.boot"),
              config.boot.firmware === "direct"
                ? [config.boot.kernel, config.boot.initramfs].filter(Boolean).join(" + ") || "–"
                : t(`vm.boot.${config.boot.firmware}`),
            ],
            ...(config.boot.commandLine
              ? [[t("vm.commandLine"), <code key="c">{config.boot.commandLine}</code>] as [string, preact.ComponentChildren]]
              : []),
            ...(config.boot.firmware === "direct" ? [] : [[t("vm.order"), orderName(config.boot)] as [string, string]]),
            [t("vm.watchdog"), watchdogName(config.watchdog)],
            [t("vm.onPanic"), t(`vm.incident.${config.onPanic}`)],
            [t("vm.autostart"), config.autostart ? t("yes") : t("no")],
            [t("vm.snapshots"), vm.snapshotCount],
            [t("vm.notes"), config.notes || "–"],
          ]}
        />
      </Card>
      <Card title={t("vm.usage")} class="w5">
        <div style={{ display: "grid", gridTemplateColumns: "1fr 1fr", gap: "16px" }}>
          <Gauge
            name={t("cpu")}
            used={on ? vm.usage.cpuMhz : 0}
            total={each * config.vcpus}
            text={mhz(on ? vm.usage.cpuMhz : 0)}
            sub={t("vm.vcpuCount", { count: config.vcpus })}
          />
          <Gauge
            name={t("memory")}
            used={on ? vm.usage.memory : 0}
            total={config.memory}
            text={bytes(on ? vm.usage.memory : 0)}
            sub={t("of", { total: bytes(config.memory) })}
          />
        </div>
      </Card>
      <Card title={t("vm.hardware")} flush>
        <div class="scroll-x">
          <table class="simple">
            <thead>
              <tr>
                <th scope="col">{t("vm.device")}</th>
                <th scope="col">{t("vm.value")}</th>
                <th scope="col">{t("vm.detail")}</th>
              </tr>
            </thead>
            <tbody>
              <tr>
                <td>
                  <span class="row">
                    <Icon name="cpu" />
                    {t("cpu")}
                  </span>
                </td>
                <td>{t("vm.vcpuCount", { count: config.vcpus })}</td>
                <td class="muted">
                  {t("vm.shares")} {config.cpuShares} · {t("vm.reservation")} {mhz(config.cpuReservationMhz)} · {t("vm.limit")}{" "}
                  {config.cpuLimitMhz ? mhz(config.cpuLimitMhz) : t("vm.unlimited")}
                </td>
              </tr>
              <tr>
                <td>
                  <span class="row">
                    <Icon name="memory" />
                    {t("memory")}
                  </span>
                </td>
                <td class="num">{bytes(config.memory)}</td>
                <td />
              </tr>
              {config.disks.map((disk, index) => (
                <tr key={disk.id}>
                  <td>
                    <span class="row">
                      <Icon name="disk" />
                      {t("vm.diskNumber", { number: index + 1 })}
                    </span>
                  </td>
                  <td class="num">{bytes(disk.size)}</td>
                  <td class="muted">
                    [{named(datastores.value, disk.datastore)}] {disk.path} · {t(`vm.controller.${disk.controller}`)}
                  </td>
                </tr>
              ))}
              {(config.cdrom || config.boot.firmware !== "direct") && (
                <tr>
                  <td>
                    <span class="row">
                      <Icon name="disc" />
                      {t("vm.cdrom")}
                    </span>
                  </td>
                  <td colSpan={2}>{config.boot.firmware === "direct" ? config.cdrom : <Medium vm={vm} />}</td>
                </tr>
              )}
              {config.nics.map((nic, index) => (
                <tr key={nic.id}>
                  <td>
                    <span class="row">
                      <Icon name="network" />
                      {t("vm.nicNumber", { number: index + 1 })}
                    </span>
                  </td>
                  <td>
                    <a href="#/networking">{named(portGroups.value, nic.network)}</a>
                  </td>
                  <td class="muted">
                    <span class="row">
                      <code>{nic.mac}</code>
                      {t(`vm.model.${nic.model}`)}
                      <Badge tone={nic.connected ? "ok" : "off"}>{nic.connected ? t("connected") : t("disconnected")}</Badge>
                    </span>
                  </td>
                </tr>
              ))}
              {config.passthrough.map((address, index) => (
                <tr key={address}>
                  <td>
                    <span class="row">
                      <Icon name="service" />
                      {t("vm.functionNumber", { number: index + 1 })}
                    </span>
                  </td>
                  <td>
                    <code>{address}</code>
                  </td>
                  <td class="muted">{t("vm.functionOwn")}</td>
                </tr>
              ))}
            </tbody>
          </table>
        </div>
      </Card>
    </div>
  );
}

export function VmPage({ id }: { id: string }) {
  const [dialog, setDialog] = useState<VmDialog | null>(null);
  const vm = vmById.value.get(id);
  const tab = path.value[2] ?? "summary";
  if (!vm) return vmsLoaded.value ? <PageHead icon="vm" title={t("vm.gone")} crumbs={[[t("nav.vms"), "#/vms"]]} /> : <Spinner />;
  const its = events.value.filter((event) => event.target === id);
  return (
    <>
      <PageHead
        icon="vm"
        title={vm.config.name}
        crumbs={[[t("nav.vms"), "#/vms"]]}
        sub={
          <>
            <Badge tone={POWER_TONES[shownState(vm)]} dot>
              {tOr("power", shownState(vm))}
            </Badge>
            {(vm.health === "red" || vm.health === "yellow") && <Badge tone={HEALTH_TONES[vm.health]}>{tOr("health", vm.health)}</Badge>}
            <span>{tOr("os", vm.config.guestOs)}</span>
            <code>{vm.id}</code>
          </>
        }
        actions={
          <>
            {can("start", vm) && (
              <Button kind="primary" icon="play" onClick={() => power("start", [vm])}>
                {t("vm.start")}
              </Button>
            )}
            {can("resume", vm) && (
              <Button kind="primary" icon="play" onClick={() => power("resume", [vm])}>
                {t("vm.resume")}
              </Button>
            )}
            {can("shutdown", vm) && (
              <Button icon="power" onClick={() => power("shutdown", [vm])}>
                {t("vm.shutdown")}
              </Button>
            )}
            <Button icon="edit" onClick={() => setDialog("edit")}>
              {t("edit")}
            </Button>
            <Menu label={t("actions")} items={vmItems(vm, setDialog)}>
              <Icon name="more" small />
              {t("actions")}
            </Menu>
          </>
        }
      />
      <Alarms vm={vm} />
      <Tabs
        label={vm.config.name}
        current={tab}
        items={TABS.map((name) => [name, t(`vm.tab.${name}`), href("vms", id, ...(name === "summary" ? [] : [name]))])}
      />
      {tab === "summary" && <Summary vm={vm} />}
      {tab === "screen" && <Screen vm={vm} />}
      {tab === "console" && <Console vm={vm} />}
      {tab === "performance" && <Performance entity={id} />}
      {tab === "snapshots" && <Snapshots vm={vm} onTake={() => setDialog("snapshot")} />}
      {tab === "events" && (
        <Card title={t("vm.tab.events")} flush>
          <Table
            label={t("vm.tab.events")}
            rows={its}
            columns={eventColumns()}
            rowKey={(event) => event.id}
            empty={<Empty icon="event" title={t("events.none")} />}
          />
        </Card>
      )}
      {dialog === "clone" && <CloneVm vm={vm} onClose={() => setDialog(null)} />}
      {dialog === "snapshot" && <TakeSnapshot vm={vm} onClose={() => setDialog(null)} />}
      {dialog === "edit" && <EditVm id={id} onClose={() => setDialog(null)} />}
      {dialog === "seed" && <SeedVm vm={vm} onClose={() => setDialog(null)} />}
    </>
  );
}
