/** Datastores and the devices below them. */
import { useState } from "preact/hooks";
import { api } from "../api";
import { may } from "../api/client";
import type { StorageDevice } from "../api/types";
import { bytes } from "../format";
import { t, tOr } from "../i18n";
import { path, href } from "../router";
import { datastores, refresh } from "../state/inventory";
import { useResource } from "../state/resource";
import { Badge, Button, Card, Empty, Meter, Notice, PageHead, Spinner, Tabs } from "../ui/basic";
import { FormDialog } from "../ui/dialog";
import { SelectField, TextField } from "../ui/form";
import { Icon } from "../ui/icon";
import { type Column, Table } from "../ui/table";
import { DatastorePage } from "./datastore";
import { HEALTH_TONES } from "./overview";

function NewDatastore({ devices, onClose }: { devices: StorageDevice[]; onClose: () => void }) {
  const free = devices.filter((device) => device.datastore === null);
  const [name, setName] = useState("");
  const [device, setDevice] = useState(free[0]?.id ?? "");
  return (
    <FormDialog
      title={t("datastore.new")}
      submit={t("create")}
      danger
      valid={name.trim() !== "" && device !== ""}
      onClose={onClose}
      act={async () => {
        await api.createDatastore(name.trim(), device);
        await Promise.all([refresh("datastore"), refresh("task")]);
      }}
    >
      {free.length === 0 ? <Notice tone="warn">{t("datastore.noDevice")}</Notice> : <Notice tone="warn">{t("datastore.erases")}</Notice>}
      <TextField label={t("name")} value={name} onInput={setName} />
      <SelectField
        label={t("device")}
        value={device}
        onInput={setDevice}
        options={free.map((one) => [one.id, `${one.name} – ${one.model} (${bytes(one.size)})`])}
      />
    </FormDialog>
  );
}

export function Storage() {
  const [, tab = "datastores", which] = path.value;
  const [making, setMaking] = useState(false);
  const devices = useResource(() => api.devices(), [], { kind: "datastore", seconds: 30 });
  if (tab === "datastores" && which) return <DatastorePage key={which} id={which} />;
  const columns: Column<StorageDevice>[] = [
    {
      key: "name",
      name: t("name"),
      sort: (one) => one.name,
      cell: (one) => (
        <span class="row">
          <Icon name="disk" />
          {one.name}
        </span>
      ),
    },
    { key: "model", name: t("model"), width: "minmax(120px, 2fr)", wide: true, sort: (one) => one.model, cell: (one) => one.model },
    { key: "kind", name: t("kind"), wide: true, sort: (one) => one.kind, cell: (one) => one.kind },
    { key: "size", name: t("size"), end: true, sort: (one) => one.size, cell: (one) => bytes(one.size) },
    { key: "sector", name: t("device.sector"), end: true, wide: true, sort: (one) => one.sectorSize, cell: (one) => bytes(one.sectorSize) },
    { key: "health", name: t("state"), cell: (one) => <Badge tone={HEALTH_TONES[one.health]}>{tOr("health", one.health)}</Badge> },
    {
      key: "datastore",
      name: t("datastore"),
      cell: (one) =>
        one.datastore ? (
          <a href={href("storage", "datastores", one.datastore)}>
            {datastores.value.find((store) => store.id === one.datastore)?.name ?? one.datastore}
          </a>
        ) : (
          t("device.unused")
        ),
    },
  ];
  return (
    <>
      <PageHead
        icon="storage"
        title={t("nav.storage")}
        sub={t("datastore.summary", {
          count: datastores.value.length,
          free: bytes(datastores.value.reduce((sum, one) => sum + one.free, 0)),
        })}
        actions={
          <Button kind="primary" icon="plus" disabled={!devices.data || !may("Datastore.Config")} onClick={() => setMaking(true)}>
            {t("datastore.new")}
          </Button>
        }
      />
      <Tabs
        label={t("nav.storage")}
        current={tab}
        items={[
          ["datastores", t("datastores"), "#/storage"],
          ["devices", t("devices"), "#/storage/devices"],
        ]}
      />
      {tab === "datastores" &&
        (datastores.value.length === 0 ? (
          <Card>
            <Empty icon="storage" title={t("datastore.none")}>
              <p>{t("datastore.noneText")}</p>
            </Empty>
          </Card>
        ) : (
          <div class="usage">
            {datastores.value.map((one) => (
              <Card
                key={one.id}
                title={
                  <a class="row" href={href("storage", "datastores", one.id)}>
                    <Icon name="storage" />
                    {one.name}
                  </a>
                }
                actions={
                  <Badge tone={one.accessible ? "ok" : "danger"}>{one.accessible ? t("datastore.accessible") : t("datastore.lost")}</Badge>
                }
              >
                <div class="stack">
                  {one.problem && <Notice tone="danger">{one.problem}</Notice>}
                  <Meter
                    name={t("used")}
                    used={one.capacity - one.free}
                    total={one.capacity}
                    text={t("usedOf", { used: bytes(one.capacity - one.free), total: bytes(one.capacity) })}
                  />
                  <div class="row spread muted">
                    <span>
                      {one.kind} · {one.device}
                    </span>
                    <a href={href("storage", "datastores", one.id)}>{t("datastore.browse")}</a>
                  </div>
                </div>
              </Card>
            ))}
          </div>
        ))}
      {tab === "devices" && (
        <Card title={t("devices")} flush>
          {devices.error && <Notice tone="danger">{devices.error}</Notice>}
          {devices.data ? (
            <Table
              label={t("devices")}
              rows={devices.data}
              columns={columns}
              rowKey={(one) => one.id}
              empty={<Empty icon="disk" title={t("device.none")} />}
            />
          ) : (
            !devices.error && <Spinner />
          )}
        </Card>
      )}
      {making && <NewDatastore devices={devices.data ?? []} onClose={() => setMaking(false)} />}
    </>
  );
}
