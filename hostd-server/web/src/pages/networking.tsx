/** Networks: port groups, switches with their drawing, physical adapters, the host's own interfaces. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { may } from "../api/client";
import type { HostInterface, PhysicalNic, PortGroup, VirtualSwitch } from "../api/types";
import { t } from "../i18n";
import { path } from "../router";
import { refresh } from "../state/inventory";
import { useResource } from "../state/resource";
import { Badge, Button, Card, Empty, Notice, PageHead, Spinner, Tabs } from "../ui/basic";
import { FormDialog, ask } from "../ui/dialog";
import { CheckField, SelectField, TextField } from "../ui/form";
import { Icon } from "../ui/icon";
import { type Column, Table } from "../ui/table";
import { Topology } from "./topology";
import { whole } from "./whole";

export interface Networks {
  switches: VirtualSwitch[];
  groups: PortGroup[];
  nics: PhysicalNic[];
  interfaces: HostInterface[];
}

async function load(): Promise<Networks> {
  const [switches, groups, nics, interfaces] = await Promise.all([api.switches(), api.portGroups(), api.nics(), api.interfaces()]);
  return { switches, groups, nics, interfaces };
}

type Asked =
  | { what: "switch"; it: VirtualSwitch | null }
  | { what: "group"; it: PortGroup | null }
  | { what: "interface"; it: HostInterface }
  | null;

function SwitchDialog({
  it,
  nics,
  onClose,
  done,
}: { it: VirtualSwitch | null; nics: PhysicalNic[]; onClose: () => void; done: () => Promise<unknown> }) {
  const [name, setName] = useState(it?.name ?? "");
  const [mtu, setMtu] = useState(it?.mtu ?? 1500);
  const [uplinks, setUplinks] = useState<string[]>(it?.uplinks ?? []);
  const free = nics.filter((nic) => nic.switch === null || nic.switch === it?.id);
  return (
    <FormDialog
      title={t(it ? "switch.edit" : "switch.new")}
      submit={t(it ? "save" : "create")}
      valid={name.trim() !== "" && mtu >= 1280 && mtu <= 9000}
      onClose={onClose}
      act={async () => {
        await (it ? api.editSwitch(it.id, { mtu, uplinks }) : api.createSwitch(name.trim(), mtu, uplinks));
        await done();
      }}
    >
      <TextField label={t("name")} value={name} onInput={setName} input={{ disabled: it !== null }} />
      <TextField
        label={t("switch.mtu")}
        type="number"
        value={String(mtu)}
        onInput={(text) => setMtu(whole(text))}
        input={{ min: 1280, max: 9000 }}
      />
      <fieldset>
        <legend>{t("switch.uplinks")}</legend>
        {free.length === 0 && <p class="muted">{t("switch.noNic")}</p>}
        {free.map((nic) => (
          <CheckField
            key={nic.id}
            label={`${nic.name} (${nic.mac})`}
            value={uplinks.includes(nic.id)}
            onInput={(on) => setUplinks(on ? [...uplinks, nic.id] : uplinks.filter((one) => one !== nic.id))}
          />
        ))}
      </fieldset>
    </FormDialog>
  );
}

function GroupDialog({
  it,
  switches,
  onClose,
  done,
}: { it: PortGroup | null; switches: VirtualSwitch[]; onClose: () => void; done: () => Promise<unknown> }) {
  const [name, setName] = useState(it?.name ?? "");
  const [vlan, setVlan] = useState(it?.vlan ?? 0);
  const [where, setWhere] = useState(it?.switch ?? switches[0]?.id ?? "");
  const [security, setSecurity] = useState(it?.security ?? { promiscuous: false, macChanges: false, forgedTransmits: false });
  return (
    <FormDialog
      title={t(it ? "group.edit" : "group.new")}
      submit={t(it ? "save" : "create")}
      valid={name.trim() !== "" && vlan <= 4095 && where !== ""}
      onClose={onClose}
      act={async () => {
        const change = { vlan, security };
        await (it ? api.editPortGroup(it.id, change) : api.createPortGroup({ ...change, name: name.trim(), switch: where }));
        await done();
      }}
    >
      <TextField label={t("name")} value={name} onInput={setName} input={{ disabled: it !== null }} />
      <SelectField
        label={t("switch")}
        value={where}
        onInput={setWhere}
        disabled={it !== null}
        options={switches.map((one) => [one.id, one.name])}
      />
      <TextField
        label={t("group.vlan")}
        hint={t("group.vlanHint")}
        type="number"
        value={String(vlan)}
        onInput={(text) => setVlan(whole(text))}
        input={{ min: 0, max: 4095 }}
      />
      <fieldset>
        <legend>{t("group.security")}</legend>
        <div class="stack small">
          <CheckField
            label={t("group.promiscuous")}
            value={security.promiscuous}
            onInput={(promiscuous) => setSecurity({ ...security, promiscuous })}
          />
          <CheckField
            label={t("group.macChanges")}
            value={security.macChanges}
            onInput={(macChanges) => setSecurity({ ...security, macChanges })}
          />
          <CheckField
            label={t("group.forged")}
            value={security.forgedTransmits}
            onInput={(forgedTransmits) => setSecurity({ ...security, forgedTransmits })}
          />
        </div>
      </fieldset>
    </FormDialog>
  );
}

const ADDRESS = /^(\d{1,3}\.){3}\d{1,3}$/;

function InterfaceDialog({ it, onClose, done }: { it: HostInterface; onClose: () => void; done: () => Promise<unknown> }) {
  const [edit, setEdit] = useState(it);
  const set = (change: Partial<HostInterface>) => setEdit({ ...edit, ...change });
  const right = (address: string | null, needed: boolean) =>
    address ? ADDRESS.test(address) && address.split(".").every((part) => Number(part) < 256) : !needed;
  return (
    <FormDialog
      title={t("interface.edit", { name: it.name })}
      submit={t("save")}
      danger
      valid={edit.dhcp || (right(edit.ipv4, true) && right(edit.netmask, true) && right(edit.gateway, false))}
      onClose={onClose}
      act={async () => {
        await api.editInterface(
          it.id,
          edit.dhcp ? { dhcp: true } : { dhcp: false, ipv4: edit.ipv4, netmask: edit.netmask, gateway: edit.gateway || null },
        );
        await done();
      }}
    >
      <Notice tone="warn">{t("interface.warn")}</Notice>
      <CheckField label={t("interface.dhcp")} value={edit.dhcp} onInput={(dhcp) => set({ dhcp })} />
      {!edit.dhcp && (
        <div class="fields">
          <TextField
            label={t("interface.ipv4")}
            value={edit.ipv4 ?? ""}
            onInput={(ipv4) => set({ ipv4 })}
            error={edit.ipv4 && !right(edit.ipv4, true) ? t("interface.badAddress") : null}
          />
          <TextField
            label={t("interface.netmask")}
            value={edit.netmask ?? ""}
            onInput={(netmask) => set({ netmask })}
            error={edit.netmask && !right(edit.netmask, true) ? t("interface.badAddress") : null}
          />
          <TextField
            label={t("interface.gateway")}
            value={edit.gateway ?? ""}
            onInput={(gateway) => set({ gateway })}
            error={right(edit.gateway, false) ? null : t("interface.badAddress")}
          />
        </div>
      )}
    </FormDialog>
  );
}

export function Networking() {
  const tab = path.value[1] ?? "topology";
  const { data, error, reload } = useResource(load, [], { kind: "network", seconds: 10 });
  const [asked, setAsked] = useState<Asked>(null);
  const done = () => Promise.all([reload(), refresh("network")]);
  const switchName = (id: string | null) => data?.switches.find((one) => one.id === id)?.name ?? id ?? "–";
  const groupColumns: Column<PortGroup>[] = [
    {
      key: "name",
      name: t("name"),
      width: "minmax(130px, 2fr)",
      sort: (one) => one.name,
      cell: (one) => (
        <span class="row">
          <Icon name="network" />
          {one.name}
        </span>
      ),
    },
    {
      key: "vlan",
      name: "VLAN",
      width: "80px",
      end: true,
      sort: (one) => one.vlan,
      cell: (one) => (one.vlan === 4095 ? t("group.trunk") : one.vlan),
    },
    { key: "switch", name: t("switch"), wide: true, sort: (one) => switchName(one.switch), cell: (one) => switchName(one.switch) },
    {
      key: "ports",
      name: t("group.ports"),
      end: true,
      width: "110px",
      sort: (one) => one.vms.length,
      cell: (one) => one.vms.length + one.hostInterfaces.length,
    },
    {
      key: "act",
      name: "",
      width: "110px",
      cell: (one) => (
        <span class="row tight">
          <Button
            icon="edit"
            kind="plain"
            label={t("edit.named", { name: one.name })}
            onClick={() => setAsked({ what: "group", it: one })}
          />
          <Button
            icon="trash"
            kind="plain"
            danger
            label={t("remove.named", { name: one.name })}
            onClick={() =>
              ask({
                title: t("group.delete"),
                text: t("group.deleteAsk", { name: one.name }),
                submit: t("delete"),
                danger: true,
                act: () => api.deletePortGroup(one.id).then(done),
              })
            }
          />
        </span>
      ),
    },
  ];
  const nicColumns: Column<PhysicalNic>[] = [
    { key: "name", name: t("name"), sort: (one) => one.name, cell: (one) => <strong>{one.name}</strong> },
    {
      key: "link",
      name: t("nic.link"),
      width: "140px",
      cell: (one) => (
        <Badge tone={one.linkUp ? "ok" : "off"} dot>
          {one.linkUp ? t("nic.speed", { speed: one.speedMbps }) : t("nic.down")}
        </Badge>
      ),
    },
    { key: "mac", name: "MAC", width: "170px", cell: (one) => <code>{one.mac}</code> },
    { key: "driver", name: t("nic.driver"), wide: true, sort: (one) => one.driver, cell: (one) => one.driver },
    { key: "switch", name: t("switch"), wide: true, cell: (one) => switchName(one.switch) },
  ];
  const interfaceColumns: Column<HostInterface>[] = [
    { key: "name", name: t("name"), width: "100px", cell: (one) => <strong>{one.name}</strong> },
    {
      key: "address",
      name: t("interface.ipv4"),
      cell: (one) => (
        <span>
          {one.ipv4 ?? "–"} <Badge tone="info">{one.dhcp ? "DHCP" : t("interface.static")}</Badge>
        </span>
      ),
      width: "minmax(160px, 1.3fr)",
    },
    { key: "ipv6", name: "IPv6", wide: true, width: "minmax(160px, 2fr)", cell: (one) => one.ipv6.join(", ") || "–" },
    { key: "gateway", name: t("interface.gateway"), wide: true, cell: (one) => one.gateway ?? "–" },
    {
      key: "group",
      name: t("group"),
      wide: true,
      cell: (one) => data?.groups.find((group) => group.id === one.portGroup)?.name ?? one.portGroup,
    },
    {
      key: "act",
      name: "",
      width: "60px",
      cell: (one) => (
        <Button
          icon="edit"
          kind="plain"
          label={t("edit.named", { name: one.name })}
          onClick={() => setAsked({ what: "interface", it: one })}
        />
      ),
    },
  ];
  return (
    <>
      <PageHead
        icon="network"
        title={t("nav.networking")}
        sub={data ? t("network.summary", { switches: data.switches.length, groups: data.groups.length }) : undefined}
        actions={
          <>
            <Button
              kind="primary"
              icon="plus"
              disabled={!data?.switches.length || !may("Network.Config")}
              onClick={() => setAsked({ what: "group", it: null })}
            >
              {t("group.new")}
            </Button>
            <Button icon="plus" disabled={!data || !may("Network.Config")} onClick={() => setAsked({ what: "switch", it: null })}>
              {t("switch.new")}
            </Button>
          </>
        }
      />
      <Tabs
        label={t("nav.networking")}
        current={tab}
        items={[
          ["topology", t("network.topology"), "#/networking"],
          ["groups", t("groups"), "#/networking/groups"],
          ["nics", t("nics"), "#/networking/nics"],
          ["interfaces", t("interfaces"), "#/networking/interfaces"],
        ]}
      />
      {error && <Notice tone="danger">{error}</Notice>}
      {!data ? (
        !error && <Spinner />
      ) : (
        <>
          {tab === "topology" &&
            (data.switches.length === 0 ? (
              <Card>
                <Empty icon="network" title={t("switch.none")} />
              </Card>
            ) : (
              <div class="stack">
                {data.switches.map((one) => (
                  <Card
                    key={one.id}
                    title={one.name}
                    flush
                    actions={
                      <>
                        <span class="muted">
                          MTU {one.mtu} · {t("switch.ports", { used: one.usedPorts, ports: one.ports })}
                        </span>
                        <Button
                          icon="edit"
                          kind="plain"
                          label={t("edit.named", { name: one.name })}
                          onClick={() => setAsked({ what: "switch", it: one })}
                        />
                        <Button
                          icon="trash"
                          kind="plain"
                          danger
                          label={t("remove.named", { name: one.name })}
                          onClick={() =>
                            ask({
                              title: t("switch.delete"),
                              text: t("switch.deleteAsk", { name: one.name }),
                              submit: t("delete"),
                              danger: true,
                              act: () => api.deleteSwitch(one.id).then(done),
                            })
                          }
                        />
                      </>
                    }
                  >
                    <Topology of={one} networks={data} />
                  </Card>
                ))}
              </div>
            ))}
          {tab === "groups" && (
            <Card title={t("groups")} flush>
              <Table
                label={t("groups")}
                rows={data.groups}
                columns={groupColumns}
                rowKey={(one) => one.id}
                empty={<Empty icon="network" title={t("group.none")} />}
              />
            </Card>
          )}
          {tab === "nics" && (
            <Card title={t("nics")} flush>
              <Table
                label={t("nics")}
                rows={data.nics}
                columns={nicColumns}
                rowKey={(one) => one.id}
                empty={<Empty icon="network" title={t("nic.none")} />}
              />
            </Card>
          )}
          {tab === "interfaces" && (
            <Card title={t("interfaces")} flush>
              <Table
                label={t("interfaces")}
                rows={data.interfaces}
                columns={interfaceColumns}
                rowKey={(one) => one.id}
                empty={<Empty icon="network" title={t("interface.none")} />}
              />
            </Card>
          )}
          {asked?.what === "switch" && <SwitchDialog it={asked.it} nics={data.nics} done={done} onClose={() => setAsked(null)} />}
          {asked?.what === "group" && <GroupDialog it={asked.it} switches={data.switches} done={done} onClose={() => setAsked(null)} />}
          {asked?.what === "interface" && <InterfaceDialog it={asked.it} done={done} onClose={() => setAsked(null)} />}
        </>
      )}
    </>
  );
}
