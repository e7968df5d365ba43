/** All machines. */
import { useMemo, useState } from "preact/hooks";
import { may } from "../api/client";
import type { Vm } from "../api/types";
import { bytes, mhz } from "../format";
import { t, tOr } from "../i18n";
import { href } from "../router";
import { refresh, vms, vmsLoaded } from "../state/inventory";
import { Badge, Button, Card, Empty, Menu, PageHead, Spinner } from "../ui/basic";
import { Icon } from "../ui/icon";
import { type Column, Table } from "../ui/table";
import { Thumbnail } from "../ui/thumbnail";
import {
  CloneVm,
  POWER_TONES,
  TakeSnapshot,
  type VmDialog,
  can,
  openConsole,
  power,
  powerItems,
  removeVms,
  shownState,
  vmItems,
} from "./vm-actions";
import { AlarmMark } from "./vm-alarms";
import { EditVm } from "./vm-edit";
import { SeedVm } from "./vm-seed";
import { NewVm } from "./wizard";

type Asked = { what: VmDialog; vm: Vm } | null;

export function Vms() {
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [filter, setFilter] = useState("");
  const [making, setMaking] = useState(false);
  const [asked, setAsked] = useState<Asked>(null);
  const all = vms.value;
  const rows = useMemo(() => {
    const wanted = filter.trim().toLowerCase();
    return wanted
      ? all.filter((vm) =>
          `${vm.config.name} ${vm.config.guestOs} ${vm.addresses.join(" ")} ${tOr("power", shownState(vm))}`.toLowerCase().includes(wanted),
        )
      : all;
  }, [all, filter]);
  const machines = all.filter((vm) => chosen.has(vm.id));
  const one = machines.length === 1 ? machines[0] : undefined;

  const columns: Column<Vm>[] = [
    {
      key: "name",
      name: t("name"),
      width: "minmax(150px, 2.2fr)",
      sort: (vm) => vm.config.name,
      cell: (vm) => (
        <span class="row">
          <span class={`dot ${POWER_TONES[shownState(vm)]}`} />
          <a class="ellipsis" href={href("vms", vm.id)}>
            {vm.config.name}
          </a>
          <AlarmMark vm={vm} />
        </span>
      ),
    },
    {
      key: "state",
      name: t("state"),
      width: "140px",
      sort: shownState,
      cell: (vm) => <Badge tone={POWER_TONES[shownState(vm)]}>{tOr("power", shownState(vm))}</Badge>,
    },
    {
      key: "os",
      name: t("vm.guestOs"),
      wide: true,
      width: "minmax(110px, 1.5fr)",
      sort: (vm) => tOr("os", vm.config.guestOs),
      cell: (vm) => tOr("os", vm.config.guestOs),
    },
    {
      key: "address",
      name: t("vm.address"),
      wide: true,
      width: "minmax(106px, 1.2fr)",
      sort: (vm) => vm.addresses[0] ?? "",
      cell: (vm) => vm.addresses[0] ?? "–",
    },
    {
      key: "vcpus",
      name: t("vm.vcpusShort"),
      wide: true,
      end: true,
      width: "76px",
      sort: (vm) => vm.config.vcpus,
      cell: (vm) => vm.config.vcpus,
    },
    {
      key: "cpu",
      name: t("cpu"),
      wide: true,
      end: true,
      width: "86px",
      sort: (vm) => vm.usage.cpuMhz,
      cell: (vm) => (vm.powerState === "poweredOn" ? mhz(vm.usage.cpuMhz) : "–"),
    },
    {
      key: "memory",
      name: t("memory"),
      wide: true,
      end: true,
      width: "90px",
      sort: (vm) => vm.config.memory,
      cell: (vm) => bytes(vm.config.memory),
    },
    {
      key: "screen",
      name: t("screen.title"),
      wide: true,
      width: "96px",
      cell: (vm) => <Thumbnail vm={vm} divisor={8} width={72} />,
    },
    {
      key: "more",
      name: "",
      width: "58px",
      cell: (vm) => (
        <Button icon="console" kind="plain" label={t("console.openOf", { name: vm.config.name })} onClick={() => openConsole(vm)} />
      ),
    },
  ];

  const act = (what: "start" | "shutdown" | "suspend") => () => power(what, machines);
  return (
    <>
      <PageHead
        icon="vm"
        title={t("nav.vms")}
        sub={t("vm.summary", { count: all.length, on: all.filter((vm) => vm.powerState === "poweredOn").length })}
        actions={
          <Button kind="primary" icon="plus" disabled={!may("VirtualMachine.Create")} onClick={() => setMaking(true)}>
            {t("vm.new")}
          </Button>
        }
      />
      <Card flush>
        <div class="toolbar" style={{ padding: "10px 12px", borderBottom: "1px solid var(--border)" }}>
          <Button icon="play" disabled={!machines.some((vm) => can("start", vm))} onClick={act("start")}>
            {t("vm.start")}
          </Button>
          <Button icon="power" disabled={!machines.some((vm) => can("shutdown", vm))} onClick={act("shutdown")}>
            {t("vm.shutdown")}
          </Button>
          <Button icon="pause" disabled={!machines.some((vm) => can("suspend", vm))} onClick={act("suspend")}>
            {t("vm.suspend")}
          </Button>
          <Menu
            start
            label={t("actions")}
            items={
              one
                ? vmItems(one, (what) => setAsked({ what, vm: one }))
                : [
                    ...powerItems(machines),
                    "line",
                    {
                      name: t("vm.delete"),
                      icon: "trash",
                      danger: true,
                      disabled: machines.length === 0 || machines.some((vm) => vm.powerState !== "poweredOff"),
                      act: () => removeVms(machines, () => setChosen(new Set())),
                    },
                  ]
            }
          >
            <Icon name="more" small />
            {t("actions")}
          </Menu>
          <Button icon="refresh" kind="plain" label={t("refresh")} onClick={() => void refresh("vm")} />
          <label class="search">
            <Icon name="search" small />
            <span class="visually-hidden">{t("search")}</span>
            <input type="search" placeholder={t("search")} value={filter} onInput={(event) => setFilter(event.currentTarget.value)} />
          </label>
        </div>
        {!vmsLoaded.value ? (
          <Spinner />
        ) : (
          <Table
            label={t("nav.vms")}
            rows={rows}
            columns={columns}
            rowKey={(vm) => vm.id}
            rowName={(vm) => vm.config.name}
            selected={chosen}
            onSelect={setChosen}
            initialSort={["name", 1]}
            foot
            maxHeight="calc(100vh - 440px)"
            empty={
              filter ? (
                <Empty icon="search" title={t("search.none", { text: filter })} />
              ) : (
                <Empty icon="vm" title={t("vm.none")}>
                  <p>{t("vm.noneText")}</p>
                  <Button kind="primary" icon="plus" disabled={!may("VirtualMachine.Create")} onClick={() => setMaking(true)}>
                    {t("vm.new")}
                  </Button>
                </Empty>
              )
            }
          />
        )}
      </Card>
      {making && <NewVm onClose={() => setMaking(false)} />}
      {asked?.what === "clone" && <CloneVm vm={asked.vm} onClose={() => setAsked(null)} />}
      {asked?.what === "snapshot" && <TakeSnapshot vm={asked.vm} onClose={() => setAsked(null)} />}
      {asked?.what === "seed" && <SeedVm vm={asked.vm} onClose={() => setAsked(null)} />}
      {asked?.what === "edit" && <EditVm id={asked.vm.id} onClose={() => setAsked(null)} />}
    </>
  );
}
