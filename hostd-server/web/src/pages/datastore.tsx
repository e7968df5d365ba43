/** The browser of a datastore: folders, uploads by dropping files on it, downloads, and what else one does with files. */
import { Fragment } from "preact";
import { useEffect, useMemo, useRef, useState } from "preact/hooks";
import { api } from "../api";
import { may } from "../api/client";
import type { DatastoreFile } from "../api/types";
import { clearUploads, fileUrl, upload, uploads } from "../api/upload";
import { bytes, shortTime, span } from "../format";
import { t, tOr } from "../i18n";
import { go } from "../router";
import { datastores, refresh } from "../state/inventory";
import { useResource } from "../state/resource";
import { Button, Card, Empty, Menu, Meter, Notice, PageHead, Progress, Spinner } from "../ui/basic";
import { FormDialog, ask, attempt } from "../ui/dialog";
import { TextField } from "../ui/form";
import { Icon } from "../ui/icon";
import { type Column, Table } from "../ui/table";
import { FILE_ICONS, join, parent } from "./file-picker";

type Asked = { what: "folder" } | { what: "move" | "copy"; file: DatastoreFile } | null;

/** Asks for a path; `act` gets it without slashes at its ends. */
function PathDialog({
  title,
  submit,
  label,
  start,
  onClose,
  act,
}: { title: string; submit: string; label: string; start: string; onClose: () => void; act: (path: string) => Promise<unknown> }) {
  const [value, setValue] = useState(start);
  const clean = value.trim().replace(/^\/+|\/+$/g, "");
  return (
    <FormDialog title={title} submit={submit} valid={clean !== "" && clean !== start} onClose={onClose} act={() => act(clean)}>
      <TextField label={label} value={value} onInput={setValue} input={{ autofocus: true }} />
    </FormDialog>
  );
}

function Uploads() {
  const list = uploads.value;
  if (list.length === 0) return null;
  return (
    <Card
      title={t("upload.title")}
      actions={
        <Button kind="plain" onClick={clearUploads}>
          {t("upload.clear")}
        </Button>
      }
    >
      <ul class="stack small">
        {list.map((one) => (
          <li key={one.id}>
            <div class="row spread" style={{ flexWrap: "nowrap" }}>
              <span class="ellipsis">{one.name}</span>
              <span class="row muted num nowrap">
                {one.state === "running"
                  ? `${bytes(one.sent)} / ${bytes(one.size)}${one.speed > 0 ? ` · ${bytes(one.speed)}/s · ${span((one.size - one.sent) / one.speed)}` : ""}`
                  : tOr("uploadState", one.state)}
                {(one.state === "running" || one.state === "waiting") && (
                  <Button icon="close" kind="plain" label={t("upload.cancel", { name: one.name })} onClick={one.abort} />
                )}
              </span>
            </div>
            <Progress
              value={one.size > 0 ? (one.sent / one.size) * 100 : 100}
              tone={one.state === "failed" ? "danger" : one.state === "done" ? "ok" : undefined}
              label={one.name}
            />
            {one.error && <p style={{ color: "var(--danger)" }}>{one.error}</p>}
          </li>
        ))}
      </ul>
    </Card>
  );
}

export function DatastorePage({ id }: { id: string }) {
  const store = datastores.value.find((one) => one.id === id);
  const [folder, setFolder] = useState("");
  const [chosen, setChosen] = useState<ReadonlySet<string>>(new Set());
  const [over, setOver] = useState(0);
  const [asked, setAsked] = useState<Asked>(null);
  const input = useRef<HTMLInputElement>(null);
  const { data, error, reload } = useResource(() => api.files(id, folder), [id, folder], { kind: "datastore" });
  // biome-ignore lint/correctness/useExhaustiveDependencies: what was chosen in one folder is not chosen in another
  useEffect(() => setChosen(new Set()), [folder]);
  const rows = useMemo(
    () => [...(data ?? [])].sort((a, b) => Number(b.kind === "folder") - Number(a.kind === "folder") || a.name.localeCompare(b.name)),
    [data],
  );
  const picked = rows.filter((file) => chosen.has(file.name));
  const one = picked.length === 1 ? picked[0] : undefined;
  const done = () => {
    void reload();
    void refresh("datastore");
  };

  const send = (files: FileList | null | undefined) => {
    for (const file of files ?? []) {
      const start = () => upload(id, join(folder, file.name), file, done);
      if (rows.some((row) => row.name === file.name))
        ask({
          title: t("upload.replace"),
          text: t("upload.replaceAsk", { name: file.name }),
          submit: t("upload.replace"),
          danger: true,
          act: async () => start(),
        });
      else start();
    }
  };

  const columns: Column<DatastoreFile>[] = [
    {
      key: "name",
      name: t("name"),
      width: "minmax(180px, 3fr)",
      sort: (file) => `${file.kind === "folder" ? 0 : 1}${file.name}`,
      cell: (file) => (
        <span class="row">
          <Icon name={FILE_ICONS[file.kind] ?? "file"} />
          {file.kind === "folder" ? (
            <button
              type="button"
              class="button plain"
              style={{ minHeight: 0, padding: "0 2px", color: "var(--primary)" }}
              onClick={() => setFolder(join(folder, file.name))}
            >
              {file.name}
            </button>
          ) : (
            <span class="ellipsis" title={file.name}>
              {file.name}
            </span>
          )}
        </span>
      ),
    },
    {
      key: "size",
      name: t("size"),
      end: true,
      width: "110px",
      sort: (file) => file.size,
      cell: (file) => (file.kind === "folder" ? "–" : bytes(file.size)),
    },
    { key: "kind", name: t("kind"), wide: true, width: "150px", sort: (file) => file.kind, cell: (file) => tOr("fileKind", file.kind) },
    {
      key: "modified",
      name: t("file.modified"),
      wide: true,
      width: "190px",
      sort: (file) => file.modified,
      cell: (file) => shortTime(file.modified),
    },
  ];
  const crumbs = folder ? folder.split("/") : [];

  const erase = () =>
    ask({
      title: t("delete"),
      text: t("file.deleteAsk", { names: picked.map((file) => file.name).join(", ") }),
      submit: t("delete"),
      danger: true,
      act: async () => {
        for (const file of picked) await api.deleteFile(id, join(folder, file.name));
        setChosen(new Set());
        done();
      },
    });
  const download = () => {
    for (const file of picked) {
      if (file.kind === "folder") continue;
      const link = document.createElement("a");
      link.href = fileUrl(id, join(folder, file.name));
      link.download = file.name;
      link.click();
    }
  };

  return (
    <>
      <PageHead
        icon="storage"
        title={store?.name ?? id}
        crumbs={[[t("nav.storage"), "#/storage"]]}
        sub={store ? `${store.kind} · ${store.device}` : undefined}
        actions={
          <>
            <Button
              icon="plus"
              disabled={!may("Datastore.Config")}
              onClick={() => void attempt(t("datastore.grow"), () => api.growDatastore(id)).then(done)}
            >
              {t("datastore.grow")}
            </Button>
            <Button
              icon="trash"
              danger
              disabled={!may("Datastore.Config")}
              onClick={() =>
                ask({
                  title: t("datastore.delete"),
                  text: t("datastore.deleteAsk", { name: store?.name ?? id }),
                  submit: t("delete"),
                  danger: true,
                  act: async () => {
                    await api.deleteDatastore(id);
                    go("storage");
                    await Promise.all([refresh("datastore"), refresh("task")]);
                  },
                })
              }
            >
              {t("delete")}
            </Button>
          </>
        }
      />
      <div class="stack">
        {store && (
          <Card>
            <Meter
              name={t("used")}
              used={store.capacity - store.free}
              total={store.capacity}
              text={t("usedOf", { used: bytes(store.capacity - store.free), total: bytes(store.capacity) })}
            />
          </Card>
        )}
        <Uploads />
        <div
          class={`drop ${over > 0 ? "over" : ""}`}
          data-drop={t("upload.drop")}
          onDragEnter={(event) => {
            event.preventDefault();
            setOver((count) => count + 1);
          }}
          onDragOver={(event) => event.preventDefault()}
          onDragLeave={() => setOver((count) => Math.max(0, count - 1))}
          onDrop={(event) => {
            event.preventDefault();
            setOver(0);
            send(event.dataTransfer?.files);
          }}
        >
          <Card flush>
            <div class="toolbar" style={{ padding: "10px 12px", borderBottom: "1px solid var(--border)" }}>
              <Button kind="primary" icon="upload" onClick={() => input.current?.click()}>
                {t("upload")}
              </Button>
              <input
                ref={input}
                type="file"
                multiple
                hidden
                aria-label={t("upload")}
                onChange={(event) => {
                  send(event.currentTarget.files);
                  event.currentTarget.value = "";
                }}
              />
              <Button icon="folderPlus" onClick={() => setAsked({ what: "folder" })}>
                {t("folder.new")}
              </Button>
              <Button icon="download" disabled={!picked.some((file) => file.kind !== "folder")} onClick={download}>
                {t("download")}
              </Button>
              <Menu
                start
                label={t("actions")}
                items={[
                  { name: t("file.move"), icon: "move", disabled: !one, act: () => one && setAsked({ what: "move", file: one }) },
                  {
                    name: t("file.copy"),
                    icon: "copy",
                    disabled: !one || one.kind === "folder",
                    act: () => one && setAsked({ what: "copy", file: one }),
                  },
                  "line",
                  { name: t("delete"), icon: "trash", danger: true, disabled: picked.length === 0, act: erase },
                ]}
              >
                <Icon name="more" small />
                {t("actions")}
              </Menu>
              <Button icon="refresh" kind="plain" label={t("refresh")} onClick={done} />
            </div>
            <nav class="crumbs" aria-label={t("file.path")} style={{ padding: "10px 16px", margin: 0, alignItems: "center" }}>
              <button type="button" class="button plain" style={{ minHeight: 0, padding: "0 4px" }} onClick={() => setFolder("")}>
                {store?.name ?? id}
              </button>
              {crumbs.map((name, index) => (
                <Fragment key={name}>
                  <span aria-hidden="true">/</span>
                  <button
                    type="button"
                    class="button plain"
                    style={{ minHeight: 0, padding: "0 4px" }}
                    onClick={() => setFolder(crumbs.slice(0, index + 1).join("/"))}
                  >
                    {name}
                  </button>
                </Fragment>
              ))}
              {folder && (
                <span style={{ marginLeft: "auto" }}>
                  <Button
                    icon="up"
                    kind="plain"
                    label={t("file.up", { folder: `/${parent(folder)}` })}
                    onClick={() => setFolder(parent(folder))}
                  />
                </span>
              )}
            </nav>
            {error && <Notice tone="danger">{error}</Notice>}
            {!data && !error ? (
              <Spinner />
            ) : (
              <Table
                label={t("files")}
                rows={rows}
                columns={columns}
                rowKey={(file) => file.name}
                selected={chosen}
                onSelect={setChosen}
                foot
                maxHeight="calc(100vh - 480px)"
                empty={
                  <Empty icon="upload" title={t("file.none")}>
                    <p>{t("upload.dropHint")}</p>
                  </Empty>
                }
              />
            )}
          </Card>
        </div>
      </div>
      {asked?.what === "folder" && (
        <PathDialog
          title={t("folder.new")}
          submit={t("create")}
          label={t("name")}
          start=""
          onClose={() => setAsked(null)}
          act={async (name) => {
            await api.makeFolder(id, join(folder, name));
            done();
          }}
        />
      )}
      {(asked?.what === "move" || asked?.what === "copy") && (
        <PathDialog
          title={t(asked.what === "move" ? "file.move" : "file.copy")}
          submit={t(asked.what === "move" ? "file.move" : "file.copy")}
          label={t("file.newPath")}
          start={join(folder, asked.file.name)}
          onClose={() => setAsked(null)}
          act={async (to) => {
            await (asked.what === "move" ? api.moveFile : api.copyFile)(id, join(folder, asked.file.name), to);
            done();
          }}
        />
      )}
    </>
  );
}
