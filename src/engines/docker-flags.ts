/**
 * The flags that dockerd is started with, as its service's files tell. What stands both there and in daemon.json keeps
 * dockerd from starting. Sources: systemd.unit(5), systemd.service(5); /etc/init.d/docker of Debian.
 */
import type { EngineFiles } from "./engine.ts";

/** A flag's value, and the file that gives it. */
export interface DockerFlag {
  readonly value: string;
  readonly path: string;
}

interface Line {
  readonly key: string;
  readonly value: string;
  readonly path: string;
}

/** The values of a flag, in their order. @param name without its dashes */
export function dockerFlags(files: EngineFiles, name: string): readonly DockerFlag[] {
  const flag = new RegExp(`(?:^|[\\s"'=])--?${name}(?:=|["']?\\s+)["']?([^\\s"']+)`, "g");
  return startLines(files).flatMap(({ value, path }) => [...value.matchAll(flag)].map(([, found = ""]) => ({ value: found, path })));
}

/** The texts that dockerd's command is made of: the command itself, then what the variables in it are set to. */
function startLines(files: EngineFiles): readonly Line[] {
  const unit = UNIT_DIRECTORIES.map((directory) => `${directory}/${UNIT}`).find((path) => files.exists(path));
  if (unit === undefined) return settings(files, "/etc/default/docker").filter(({ key }) => key === "DOCKER_OPTS");
  const lines = [unit, ...dropIns(files)].flatMap((path) => settings(files, path));
  const commands = lastOf(lines, "ExecStart");
  const names = commands.flatMap(({ value }) => [...value.matchAll(/\$\{?(\w+)/g)].map(([, name = ""]) => name));
  const assigned = lastOf(lines, "Environment").flatMap(({ value, path }) => assignments(value).map((each) => ({ ...each, path })));
  const inFiles = lastOf(lines, "EnvironmentFile").flatMap(({ value }) => settings(files, value.replace(/^-/, "")));
  // A file's word counts over the unit's, and a later one's over an earlier one's.
  const variables = new Map([...assigned, ...inFiles].map((line) => [line.key, line]));
  return [...commands, ...names.flatMap((name) => variables.get(name) ?? [])];
}

/** By name: of one name in several directories the first directory's counts. */
function dropIns(files: EngineFiles): readonly string[] {
  const paths = new Map<string, string>();
  for (const directory of UNIT_DIRECTORIES.toReversed()) {
    for (const name of files.list(`${directory}/${UNIT}.d`)) if (name.endsWith(".conf")) paths.set(name, `${directory}/${UNIT}.d/${name}`);
  }
  return [...paths].toSorted(([one], [other]) => (one < other ? -1 : 1)).map(([, path]) => path);
}

/** An empty assignment takes back those before it. */
function lastOf(lines: readonly Line[], key: string): readonly Line[] {
  const given = lines.filter((line) => line.key === key);
  return given.slice(given.findLastIndex(({ value }) => value === "") + 1);
}

/** `KEY=value` lines, a backslash at the end joining the next one. */
function settings(files: EngineFiles, path: string): readonly Line[] {
  const text = (files.read(path) ?? "").replaceAll(/^\s*[#;].*\n?/gm, "").replaceAll(/\\\r?\n/g, " ");
  return [...text.matchAll(/^\s*(?:export\s+)?(\w+)\s*=(.*)$/gm)].map(([, key = "", value = ""]) => ({ key, value: value.trim(), path }));
}

/** Of `A=1 "B=2 3"`. */
function assignments(text: string): readonly { readonly key: string; readonly value: string }[] {
  return [...text.matchAll(/"(\w+)=([^"]*)"|'(\w+)=([^']*)'|(\w+)=(\S*)/g)].map(([, a, b, c, d, e, f]) => ({
    key: a ?? c ?? e ?? "",
    value: b ?? d ?? f ?? "",
  }));
}

const UNIT = "docker.service";
/** The first that has a unit counts. */
const UNIT_DIRECTORIES = ["/etc/systemd/system", "/run/systemd/system", "/usr/local/lib/systemd/system", "/usr/lib/systemd/system", "/lib/systemd/system"];
