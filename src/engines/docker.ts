/**
 * Docker: `registry-mirrors` in daemon.json, which serve docker.io alone; from Docker 28 on with containerd's image
 * store also hosts.toml files, for any registry.
 * Source: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
 */
import { applyEdits, modify, parse, type ParseError } from "jsonc-parser";
import { AppError } from "../base/errors.ts";
import { registrySegment } from "../protocol/distribution.ts";
import { DOCKER_HUB, WRITTEN_BY, type EngineFiles, type EnginePlan, type EngineRoute, type MirrorTarget, type PlannedFile } from "./engine.ts";
import { hostsDirectories, hostsFileFor, mirrorsFirst, withMirror } from "./hosts-toml.ts";

const DAEMON_FILE = "/etc/docker/daemon.json";
const HOSTS_DIRECTORY = "/etc/docker/certs.d";

export function isDockerHere(files: EngineFiles): boolean {
  return files.exists(DAEMON_FILE) || files.programVersion("dockerd") !== undefined || DOCKERD.some((path) => files.exists(path));
}

/** @throws AppError CONFIG_INVALID, its message naming the file */
export function planDocker(files: EngineFiles, mirror: MirrorTarget): EnginePlan {
  const notes: string[] = [];
  const planned: PlannedFile[] = [];
  const isHubWanted = mirror.registries?.includes(DOCKER_HUB) ?? true;
  const others = (mirror.registries ?? mirror.known.map(({ host }) => host)).filter((host) => host !== DOCKER_HUB);
  if (isHubWanted) planned.push({ path: DAEMON_FILE, text: withRegistryMirror(files.read(DAEMON_FILE), mirror.address) });
  if (others.length > 0 && readsHostsFiles(files)) {
    for (const host of others) {
      const path = hostsFileFor(files, HOSTS_DIRECTORY, host);
      const server = mirror.known.find((known) => known.host === host)?.url;
      const text = files.read(path) ?? `${WRITTEN_BY}${server === undefined ? "" : `server = "${server}"\n`}`;
      planned.push({ path, text: withMirror(text, mirror.address, path) });
    }
    notes.push(`${HOSTS_DIRECTORY} counts only with containerd's image store ("containerd-snapshotter", on in new installations of Docker 29)`);
  } else if (others.length > 0) {
    const names = others.map((host) => `${mirror.address}/${registrySegment(host)}/<repository>:<tag>`);
    notes.push(`this Docker has mirrors for docker.io alone; from elsewhere pull ${names.join(", ")}`);
  }
  return { engine: "docker", files: planned, notes, problems: [] };
}

/** @throws AppError CONFIG_INVALID */
export function dockerRoutes(files: EngineFiles, address: string): readonly EngineRoute[] {
  const [first] = mirrorsOf(files.read(DAEMON_FILE) ?? "{}");
  const isMirrored = first !== undefined && isSameUrl(first, address);
  const reason = isMirrored ? DAEMON_FILE : `${DAEMON_FILE} does not name http://${address} first in registry-mirrors`;
  const hosts = readsHostsFiles(files) ? hostsDirectories(files, HOSTS_DIRECTORY) : [];
  return [
    { registry: DOCKER_HUB, isMirrored, reason },
    ...hosts.map((host) => {
      const path = `${HOSTS_DIRECTORY}/${host}/hosts.toml`;
      return { registry: host, isMirrored: mirrorsFirst(files.read(path) ?? "", address, path), reason: path };
    }),
  ];
}

function withRegistryMirror(text: string | undefined, address: string): string {
  const url = `http://${address}`;
  let edited = text === undefined || text.trim() === "" ? "{}\n" : text;
  const mirrors = mirrorsOf(edited);
  if (!mirrors.some((known) => isSameUrl(known, address))) edited = withFirst(edited, "registry-mirrors", url, mirrors);
  // Docker takes 127.0.0.0/8 for insecure by itself, and nothing else.
  if (!/^(?:127\.|localhost:|\[::1\]:)/.test(address)) {
    const insecure = stringsAt(edited, "insecure-registries");
    if (!insecure.includes(address)) edited = withFirst(edited, "insecure-registries", address, insecure);
  }
  return edited;
}

function withFirst(text: string, key: string, value: string, present: readonly string[]): string {
  const indent = /\n([ \t]+)"/.exec(text)?.[1] ?? "  ";
  const formattingOptions = {
    insertSpaces: !indent.startsWith("\t"),
    tabSize: indent.startsWith("\t") ? 1 : indent.length,
    eol: text.includes("\r\n") ? "\r\n" : "\n",
  };
  const edits =
    present.length === 0
      ? modify(text, [key], [value], { formattingOptions })
      : modify(text, [key, 0], value, { formattingOptions, isArrayInsertion: true });
  return applyEdits(text, edits);
}

function mirrorsOf(text: string): readonly string[] {
  return stringsAt(text, "registry-mirrors");
}

/** Docker reads plain JSON: a comment or a comma too many keeps it from starting. */
function stringsAt(text: string, key: string): readonly string[] {
  const errors: ParseError[] = [];
  const value: unknown = parse(text, errors, { disallowComments: true, allowTrailingComma: false });
  const [error] = errors;
  if (error !== undefined || typeof value !== "object" || value === null || Array.isArray(value)) {
    const line = text.slice(0, error?.offset ?? 0).split("\n").length;
    throw new AppError("CONFIG_INVALID", `${DAEMON_FILE}:${line}: this is no JSON object: mend the file first`);
  }
  const found: unknown = (value as Record<string, unknown>)[key] ?? [];
  if (Array.isArray(found) && found.every((item) => typeof item === "string")) return found;
  throw new AppError("CONFIG_INVALID", `${DAEMON_FILE}: "${key}" is no list of texts: mend the file first`);
}

function isSameUrl(url: string, address: string): boolean {
  return url.replace(/\/$/, "") === `http://${address}`;
}

function readsHostsFiles(files: EngineFiles): boolean {
  return (files.programVersion("dockerd")?.major ?? 0) >= 28;
}

const DOCKERD = ["/usr/bin/dockerd", "/usr/sbin/dockerd", "/usr/local/bin/dockerd"];
