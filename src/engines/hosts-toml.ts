/** hosts.toml: where containerd, and Docker with containerd's image store, pull from instead of a registry. */
import { join } from "node:path";
import type { EngineFiles } from "./engine.ts";
import { insertTomlBlock, isTable, parseToml, tomlAt } from "./toml-text.ts";

/** The registries with a hosts.toml under `directory`; `_default` is for the rest. */
export function hostsDirectories(files: EngineFiles, directory: string): readonly string[] {
  return files.list(directory).filter((name) => files.exists(join(directory, name, "hosts.toml")));
}

/** Where a registry's file is, or is to be: `host_port_` is looked at before `host:port`. */
export function hostsFileFor(files: EngineFiles, directory: string, host: string): string {
  const escaped = host.replace(/:(\d+)$/, "_$1_");
  return join(directory, files.exists(join(directory, escaped)) ? escaped : host, "hosts.toml");
}

/** The file with the mirror before all other hosts; as it is when the mirror is in it. @throws AppError CONFIG_INVALID */
export function withMirror(text: string, address: string, path: string): string {
  const url = `http://${address}`;
  const table = parseToml(text, path);
  if (tomlAt(table, ["host", url]) !== undefined) return text;
  const capabilities = ["pull", "resolve"];
  const block = `[host."${url}"]\n  capabilities = ["pull", "resolve"]\n`;
  const hosts = isTable(table["host"]) ? table["host"] : {};
  const expected = { ...table, host: { ...hosts, [url]: { capabilities } } };
  return insertTomlBlock(text, block, (keys) => keys[0] === "host", expected, path);
}

/** True when the first host to be asked is the mirror. @throws AppError CONFIG_INVALID */
export function mirrorsFirst(text: string, address: string, path: string): boolean {
  const hosts = parseToml(text, path)["host"];
  return isTable(hosts) && Object.keys(hosts)[0] === `http://${address}`;
}
