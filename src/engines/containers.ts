/**
 * Podman, skopeo, buildah and CRI-O, which share one library and its registries.conf.
 * Source: https://github.com/containers/image/blob/main/docs/containers-registries.conf.5.md
 */
import { join } from "node:path";
import { registrySegment } from "../protocol/distribution.ts";
import { SELF_TEST_REGISTRY } from "../protocol/self-test.ts";
import { WRITTEN_BY, type EngineFiles, type EngineName, type EnginePlan, type EngineRoute, type MirrorTarget } from "./engine.ts";
import { isTable, parseToml, quoted } from "./toml-text.ts";

const MAIN_FILE = "/etc/containers/registries.conf";
const DROP_INS = "/etc/containers/registries.conf.d";
const DROP_IN = join(DROP_INS, "50-dragonfly.conf");

/** A mirror has to be named for each registry: there is no entry for "all others". */
const PUBLIC_REGISTRIES = ["docker.io", "gcr.io", "ghcr.io", "mcr.microsoft.com", "public.ecr.aws", "quay.io", "registry.k8s.io"];

const PROGRAMS = { podman: ["podman", "skopeo", "buildah"], "cri-o": ["crio"] };

export function isContainersHere(files: EngineFiles, engine: "podman" | "cri-o"): boolean {
  return PROGRAMS[engine].some((name) => ["/usr/bin", "/usr/local/bin"].some((directory) => files.exists(join(directory, name))));
}

/** @throws AppError CONFIG_INVALID, its message naming the file */
export function planContainers(files: EngineFiles, mirror: MirrorTarget, engine: "podman" | "cri-o"): EnginePlan {
  const all = [...PUBLIC_REGISTRIES, ...mirror.known.map(({ host }) => host)].toSorted();
  const wanted = [...new Set([...(mirror.registries ?? all), SELF_TEST_REGISTRY])];
  const notes: string[] = [];
  const entries = registryEntries(files).filter(({ path }) => path !== DROP_IN);
  const mirrored = wanted.filter((host) => {
    const own = entries.find(({ prefix }) => prefix === host);
    if (own !== undefined) {
      const block = `[[registry.mirror]] location = "${locationAt(mirror.address, host)}", insecure = true`;
      notes.push(`${host} has a [[registry]] of its own in ${own.path} and stays as it is; to use the mirror put there: ${block}`);
    }
    return own === undefined;
  });
  if (mirror.registries === undefined) notes.push(`mirrored are ${mirrored.filter((host) => host !== SELF_TEST_REGISTRY).join(", ")}; others have to be named with --registry`);
  const blocks = mirrored.map((host) => entry(host, mirror));
  const planned = mirrored.length === 0 ? [] : [{ path: DROP_IN, text: `${WRITTEN_BY}${blocks.join("")}` }];
  return { engine, files: planned, notes, problems: [] };
}

/** @throws AppError CONFIG_INVALID */
export function containersRoutes(files: EngineFiles, address: string): readonly EngineRoute[] {
  // A later file's entry for the same prefix replaces an earlier one's.
  const byPrefix = new Map(registryEntries(files).map((found) => [found.prefix, found]));
  return [...byPrefix.values()]
    .filter(({ prefix }) => !prefix.startsWith("*."))
    .map(({ prefix, path, firstMirror }) => {
      const location = locationAt(address, prefix);
      const isMirrored = firstMirror === location;
      return { registry: prefix, isMirrored, reason: isMirrored ? path : `${path} does not name ${location} first` };
    });
}

interface RegistryEntry {
  readonly path: string;
  readonly prefix: string;
  readonly firstMirror: string | undefined;
}

function registryEntries(files: EngineFiles): readonly RegistryEntry[] {
  const dropIns = files.list(DROP_INS).filter((name) => name.endsWith(".conf"));
  return [MAIN_FILE, ...dropIns.map((name) => join(DROP_INS, name))].flatMap((path) => {
    const registries = parseToml(files.read(path) ?? "", path)["registry"];
    if (!Array.isArray(registries)) return [];
    return registries.filter(isTable).map((registry) => {
      const [first] = Array.isArray(registry["mirror"]) ? registry["mirror"] : [];
      const location = isTable(first) ? first["location"] : undefined;
      const prefix = registry["prefix"] ?? registry["location"];
      return {
        path,
        prefix: typeof prefix === "string" ? prefix : "",
        firstMirror: typeof location === "string" ? location : undefined,
      };
    });
  });
}

function entry(host: string, mirror: MirrorTarget): string {
  const url = mirror.known.find((known) => known.host === host)?.url;
  const location = url === undefined ? host : url.replace(/^https?:\/\//, "");
  const insecure = url?.startsWith("http:") === true ? "insecure = true\n" : "";
  return (
    `\n[[registry]]\nprefix = ${quoted(host)}\nlocation = ${quoted(location)}\n${insecure}` +
    `[[registry.mirror]]\nlocation = ${quoted(locationAt(mirror.address, host))}\ninsecure = true\n`
  );
}

/** The mirror's name for a registry. */
function locationAt(address: string, host: string): string {
  return `${address}/${registrySegment(host)}`;
}

/** Engines of this library, by name. */
export function isContainersEngine(name: EngineName): name is "podman" | "cri-o" {
  return name === "podman" || name === "cri-o";
}
