/**
 * containerd's config.toml with its imports, as containerd reads it.
 * Source: https://github.com/containerd/containerd/blob/main/docs/cri/registry.md and cmd/containerd/server/config.
 */
import { dirname, isAbsolute, join, matchesGlob } from "node:path";
import type { TomlTable, TomlValue } from "smol-toml";
import type { EngineFiles } from "./engine.ts";
import { isTable, parseToml, tomlAt } from "./toml-text.ts";

export const CONFIG_FILE = "/etc/containerd/config.toml";
export const HOSTS_DIRECTORY = "/etc/containerd/certs.d";

export interface ContainerdConfig {
  /** Of the format: 1 when the main file does not say; undefined when there is none. */
  readonly version: number | undefined;
  /** Where the CRI plugin's registry settings stand. */
  readonly registryKeys: readonly string[];
  /** Roots of the hosts.toml files, as set; undefined when not, or empty. */
  readonly configPath: string | undefined;
  /** The file that has the last word on it; undefined when none speaks of it. */
  readonly settingFile: string | undefined;
  /** Older settings with which containerd refuses a `config_path`. */
  readonly legacy: readonly string[];
  readonly isCriDisabled: boolean;
  /** A directory of which the main file imports every `.toml`. */
  readonly dropInDirectory: string | undefined;
}

/** @throws AppError CONFIG_INVALID */
export function readContainerdConfig(files: EngineFiles): ContainerdConfig {
  const main = files.read(CONFIG_FILE);
  const parsed = parseToml(main ?? "", CONFIG_FILE);
  const version = main === undefined ? undefined : versionOf(parsed);
  const disabled: TomlValue[] = [];
  let registry: TomlTable = {};
  let settingFile: string | undefined;
  for (const { path, table } of withImports(files, CONFIG_FILE, parsed)) {
    if (Array.isArray(table["disabled_plugins"])) disabled.push(...table["disabled_plugins"]);
    const keys = registryKeysOf(versionOf(table));
    const section = tomlAt(table, keys.slice(0, -1));
    const own = tomlAt(table, keys);
    // Up to format 2 an imported file's section replaces the plugin's as a whole, later it is merged into it.
    if (versionOf(table) <= 2 && isTable(section)) {
      registry = {};
      settingFile = path;
    }
    if (!isTable(own)) continue;
    registry = { ...registry, ...own };
    if (own["config_path"] !== undefined) settingFile = path;
  }
  const configPath = registry["config_path"];
  return {
    version,
    registryKeys: registryKeysOf(version ?? 2),
    configPath: typeof configPath === "string" && configPath !== "" ? configPath : undefined,
    settingFile,
    legacy: legacyOf(registry),
    isCriDisabled: disabled.some((name) => typeof name === "string" && CRI_PLUGINS.has(name)),
    dropInDirectory: importsOf(parsed, CONFIG_FILE).find((pattern) => pattern.endsWith("/*.toml"))?.slice(0, -"/*.toml".length),
  };
}

/** The table that holds `config_path`, by the format's version. */
export function registryKeysOf(version: number): readonly string[] {
  if (version <= 1) return ["plugins", "cri", "registry"];
  return ["plugins", version === 2 ? "io.containerd.grpc.v1.cri" : "io.containerd.cri.v1.images", "registry"];
}

function versionOf(table: TomlTable): number {
  return typeof table["version"] === "number" ? table["version"] : 1;
}

function withImports(files: EngineFiles, path: string, table: TomlTable): { readonly path: string; readonly table: TomlTable }[] {
  const loaded = [{ path, table }];
  const seen = new Set([path]);
  // Grows while it is gone through: imports may import.
  for (const from of loaded) {
    for (const pattern of importsOf(from.table, from.path)) {
      for (const found of expand(files, pattern)) {
        const text = seen.has(found) ? undefined : files.read(found);
        seen.add(found);
        if (text !== undefined) loaded.push({ path: found, table: parseToml(text, found) });
      }
    }
  }
  return loaded;
}

function importsOf(table: TomlTable, path: string): readonly string[] {
  const imports = Array.isArray(table["imports"]) ? table["imports"] : [];
  return imports
    .filter((pattern) => typeof pattern === "string")
    .map((pattern) => (isAbsolute(pattern) ? pattern : join(dirname(path), pattern)));
}

function expand(files: EngineFiles, pattern: string): readonly string[] {
  if (!pattern.includes("*")) return [pattern];
  const directory = dirname(pattern);
  return files
    .list(directory)
    .map((name) => join(directory, name))
    .filter((path) => matchesGlob(path, pattern));
}

function legacyOf(registry: TomlTable): readonly string[] {
  const mirrors = registry["mirrors"];
  const configs = registry["configs"];
  const found: string[] = [];
  if (isTable(mirrors) && Object.keys(mirrors).length > 0) found.push("registry.mirrors");
  if (isTable(configs) && Object.values(configs).some((config) => isTable(config) && config["tls"] !== undefined)) {
    found.push("registry.configs.….tls");
  }
  return found;
}

const CRI_PLUGINS: ReadonlySet<string> = new Set(["cri", "io.containerd.grpc.v1.cri", "io.containerd.cri.v1.images"]);
