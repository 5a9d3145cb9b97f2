/**
 * Docker: `registry-mirrors` in daemon.json, which serve docker.io alone; from Docker 28 on with containerd's image
 * store also hosts.toml files, for any registry.
 * Source: https://docs.docker.com/reference/cli/dockerd/#daemon-configuration-file
 */
import { applyEdits, modify, parse, type ParseError } from "jsonc-parser";
import { AppError } from "../base/errors.ts";
import { registrySegment } from "../protocol/distribution.ts";
import { dockerFlags } from "./docker-flags.ts";
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
  if (isHubWanted) {
    const problems = flagProblems(files, mirror.address);
    if (problems.length > 0) return { engine: "docker", files: [], notes: [], problems };
    const given = mirrorByFlag(files, mirror.address);
    if (given === undefined) planned.push({ path: DAEMON_FILE, text: withRegistryMirror(files.read(DAEMON_FILE), mirror.address) });
    else notes.push(`dockerd has the mirror by --registry-mirror in ${given}: ${DAEMON_FILE} stays as it is`);
  }
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
  const flagged = mirrorByFlag(files, address);
  const isMirrored = flagged !== undefined || (first !== undefined && isSameUrl(first, address));
  const reason = isMirrored ? (flagged ?? DAEMON_FILE) : `${DAEMON_FILE} does not name http://${address} first in registry-mirrors`;
  const hosts = readsHostsFiles(files) ? hostsDirectories(files, HOSTS_DIRECTORY) : [];
  return [
    { registry: DOCKER_HUB, isMirrored, reason },
    ...hosts.map((host) => {
      const path = `${HOSTS_DIRECTORY}/${host}/hosts.toml`;
      return { registry: host, isMirrored: mirrorsFirst(files.read(path) ?? "", address, path), reason: path };
    }),
  ];
}

/** What a flag of dockerd's stands in the way of: it does not start with a setting that is in its flags and in its file. */
function flagProblems(files: EngineFiles, address: string): readonly string[] {
  const problems: string[] = [];
  const [file] = dockerFlags(files, "config-file");
  if (file !== undefined && file.value !== DAEMON_FILE) {
    problems.push(`dockerd reads ${file.value}, as --config-file in ${file.path} says, and not ${DAEMON_FILE}: put "registry-mirrors": ["http://${address}"] there by hand`);
  }
  const isGiven = mirrorByFlag(files, address) !== undefined;
  const settings = [...(isGiven ? [] : [["registry-mirror", "registry-mirrors"] as const]), ...(isGiven || isLoopback(address) ? [] : [["insecure-registry", "insecure-registries"] as const])];
  for (const [flag, key] of settings) {
    const [given] = dockerFlags(files, flag);
    if (given === undefined) continue;
    problems.push(`${given.path} gives dockerd --${flag} ${given.value}, and with "${key}" in ${DAEMON_FILE} beside it dockerd would not start: move it there, then run setup again`);
  }
  return problems;
}

/** @returns the file in which a flag names the mirror first */
function mirrorByFlag(files: EngineFiles, address: string): string | undefined {
  const [first] = dockerFlags(files, "registry-mirror");
  return first !== undefined && isSameUrl(first.value, address) ? first.path : undefined;
}

function isLoopback(address: string): boolean {
  return /^(?:127\.|localhost:|\[::1\]:)/.test(address);
}

function withRegistryMirror(text: string | undefined, address: string): string {
  const url = `http://${address}`;
  let edited = text === undefined || text.trim() === "" ? "{}\n" : text;
  const mirrors = mirrorsOf(edited);
  if (!mirrors.some((known) => isSameUrl(known, address))) edited = withFirst(edited, "registry-mirrors", url, mirrors);
  // Docker takes 127.0.0.0/8 for insecure by itself, and nothing else.
  if (!isLoopback(address)) {
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
