/**
 * containerd: a hosts.toml per registry, and the setting that makes its CRI plugin read them.
 * Source: https://github.com/containerd/containerd/blob/main/docs/hosts.md
 */
import { join } from "node:path";
import { SELF_TEST_REGISTRY } from "../protocol/self-test.ts";
import { CONFIG_FILE, HOSTS_DIRECTORY, readContainerdConfig, registryKeysOf, type ContainerdConfig } from "./containerd-config.ts";
import { WRITTEN_BY, type EngineFiles, type EnginePlan, type EngineRoute, type MirrorTarget, type PlannedFile } from "./engine.ts";
import { hostsDirectories, hostsFileFor, mirrorsFirst, withMirror } from "./hosts-toml.ts";
import { setTomlString } from "./toml-text.ts";

export function isContainerdHere(files: EngineFiles): boolean {
  return files.exists("/etc/containerd") || files.programVersion("containerd") !== undefined || files.exists("/usr/bin/containerd");
}

/** @throws AppError CONFIG_INVALID, its message naming the file */
export function planContainerd(files: EngineFiles, mirror: MirrorTarget): EnginePlan {
  const config = readContainerdConfig(files);
  const plan = { engine: "containerd", notes: [], problems: [], files: [] } as const;
  if (config.legacy.length > 0) {
    const problem =
      `${CONFIG_FILE} has ${config.legacy.join(" and ")}, with which containerd refuses hosts.toml files: ` +
      `move them to ${HOSTS_DIRECTORY}/<host>/hosts.toml, then run setup again`;
    return { ...plan, problems: [problem] };
  }
  const directory = rootsOf(config)[0] ?? HOSTS_DIRECTORY;
  const hosts = mirror.registries === undefined ? [...mirror.known.map(({ host }) => host), "_default"] : [...mirror.registries, SELF_TEST_REGISTRY];
  const planned = hosts.map((host) => hostsFile(files, directory, host, mirror));
  const notes: string[] = [];
  if (mirror.registries === undefined) {
    const taken = new Set(planned.map(({ path }) => path));
    for (const host of hostsDirectories(files, directory)) {
      if (taken.has(join(directory, host, "hosts.toml"))) continue;
      notes.push(`${host} has a configuration of its own in ${join(directory, host)} and stays as it is; --registry ${host} puts the mirror before it`);
    }
  }
  if (config.isCriDisabled) {
    notes.push(`the CRI plugin is disabled in ${CONFIG_FILE}: only nerdctl, and ctr with --hosts-dir ${directory}, pull through the mirror`);
    return { ...plan, notes, files: planned };
  }
  const setting = pathSetting(files, config, directory);
  return { ...plan, notes, files: setting === undefined ? planned : [...planned, setting] };
}

/** Which registries would be pulled through the mirror at `address` by CRI. @throws AppError CONFIG_INVALID */
export function containerdRoutes(files: EngineFiles, address: string): readonly EngineRoute[] {
  const config = readContainerdConfig(files);
  const [root] = rootsOf(config);
  if (config.isCriDisabled) return [{ registry: "*", isMirrored: false, reason: `the CRI plugin is disabled in ${CONFIG_FILE}` }];
  if (root === undefined) {
    return [{ registry: "*", isMirrored: false, reason: `no config_path in ${CONFIG_FILE}: hosts.toml files are not read` }];
  }
  if (config.configPath !== root && isListBroken(files)) {
    const reason = `config_path "${config.configPath}" is a list, which containerd 2 takes for one directory (containerd issue 12808)`;
    return [{ registry: "*", isMirrored: false, reason }];
  }
  return hostsDirectories(files, root).map((host) => {
    const path = join(root, host, "hosts.toml");
    const isMirrored = mirrorsFirst(files.read(path) ?? "", address, path);
    const registry = host === "_default" ? "*" : host.replace(/_(\d+)_$/, ":$1");
    return { registry, isMirrored, reason: isMirrored ? path : `${path} does not name http://${address} first` };
  });
}

/** Where its hosts.toml files are, and the files that say so: it reads those at its start only. @throws AppError CONFIG_INVALID */
export function containerdFiles(files: EngineFiles): { readonly hostsDirectory: string; readonly readAtStart: readonly string[] } {
  const config = readContainerdConfig(files);
  const readAtStart = config.settingFile === undefined ? [] : [config.settingFile];
  return { hostsDirectory: rootsOf(config)[0] ?? HOSTS_DIRECTORY, readAtStart };
}

function hostsFile(files: EngineFiles, directory: string, host: string, mirror: MirrorTarget): PlannedFile {
  const path = hostsFileFor(files, directory, host);
  const server = mirror.known.find((known) => known.host === host)?.url;
  const text = files.read(path) ?? `${WRITTEN_BY}${server === undefined ? "" : `server = "${server}"\n`}`;
  return { path, text: withMirror(text, mirror.address, path) };
}

/** The file that has to say `config_path`; undefined when that is said as it should be. */
function pathSetting(files: EngineFiles, config: ContainerdConfig, directory: string): PlannedFile | undefined {
  const isRead = config.configPath === directory || (rootsOf(config).includes(directory) && !isListBroken(files));
  if (isRead) return undefined;
  if (config.version === undefined) {
    const version = (files.programVersion("containerd")?.major ?? 1) >= 2 ? 3 : 2;
    const text = `${WRITTEN_BY}version = ${version}\n`;
    return { path: CONFIG_FILE, text: setTomlString(text, registryKeysOf(version), "config_path", directory, CONFIG_FILE) };
  }
  // A file of our own where containerd imports a folder; up to format 2 it would replace the whole CRI section.
  const isDropIn = config.version >= 3 && config.settingFile === undefined && config.dropInDirectory !== undefined;
  const dropIn = isDropIn ? join(config.dropInDirectory, "90-dragonfly.toml") : CONFIG_FILE;
  const path = config.settingFile ?? dropIn;
  const text = files.read(path) ?? `${WRITTEN_BY}version = ${config.version}\n`;
  return { path, text: setTomlString(text, config.registryKeys, "config_path", directory, path) };
}

function rootsOf(config: ContainerdConfig): readonly string[] {
  return config.configPath?.split(":").filter((root) => root !== "") ?? [];
}

/** containerd 2 pulls by its transfer service, which takes a list of directories for the name of one. */
function isListBroken(files: EngineFiles): boolean {
  return (files.programVersion("containerd")?.major ?? 2) >= 2;
}
