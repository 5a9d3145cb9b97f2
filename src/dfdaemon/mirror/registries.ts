import { AppError } from "../../base/errors.ts";
import type { RegistryAccess, RegistryConfig } from "../config.ts";

/** A registry as this host reaches it. */
export interface Upstream {
  /** The one name under which we know it, whatever alias the client used. */
  readonly name: string;
  /** Without trailing slash; `/v2/…` is appended. */
  readonly baseUrl: string;
  readonly access: RegistryAccess;
}

/** The registries this host mirrors: those of the config, and any other at `https://<name>`. */
export class Registries {
  readonly #configured: ReadonlyMap<string, Upstream>;
  readonly #unnamed: Upstream | undefined;

  /**
   * @param selfTest reached as configured, and never meant when none is named
   * @throws AppError CONFIG_INVALID for a URL that cannot be a registry's, or a registry that is there twice
   */
  constructor(configs: readonly RegistryConfig[], selfTest?: RegistryConfig) {
    const configured = new Map<string, Upstream>();
    const add = (config: RegistryConfig): void => {
      const name = canonicalName(config.host);
      if (configured.has(name)) {
        throw new AppError("CONFIG_INVALID", `the registry ${config.host} is configured twice; keep one of the two`);
      }
      const { access = "passthrough" } = config;
      configured.set(name, { name, baseUrl: checkedBaseUrl(config), access });
    };
    for (const config of configs) add(config);
    const [only] = configured.values();
    this.#unnamed = configured.get(DOCKER_HUB) ?? (configured.size === 1 ? only : undefined);
    if (selfTest !== undefined) add(selfTest);
    this.#configured = configured;
  }

  /**
   * @param host as the client named it; undefined = not at all: then docker.io if it is configured, else the only
   *   registry that is
   * @returns undefined when nobody can say which registry is meant
   */
  resolve(host: string | undefined): Upstream | undefined {
    if (host === undefined) return this.#unnamed;
    const name = canonicalName(host);
    return this.#configured.get(name) ?? { name, baseUrl: defaultBaseUrl(name), access: "passthrough" };
  }

  /**
   * What a Docker that names no registry means: its classic mirror setting is for docker.io alone. In a ping only if
   * that is configured: a Docker that names another registry in its later requests begins with the same ping.
   */
  resolveForDocker(isPing: boolean): Upstream | undefined {
    return isPing ? this.#configured.get(DOCKER_HUB) : this.resolve(DOCKER_HUB);
  }

  configured(): readonly Upstream[] {
    return [...this.#configured.values()];
  }
}

/** The repository's name at the registry: on docker.io, `nginx` is `library/nginx`. */
export function repositoryAt(upstream: Upstream, repository: string): string {
  return upstream.name === DOCKER_HUB && !repository.includes("/") ? `library/${repository}` : repository;
}

/** @param rest what follows the repository, such as `blobs/sha256:…`; its parts need no encoding by their grammar */
export function resourceUrl(upstream: Upstream, repository: string, rest: string): string {
  return `${upstream.baseUrl}/v2/${repositoryAt(upstream, repository)}/${rest}`;
}

function canonicalName(host: string): string {
  const name = host.toLowerCase();
  return DOCKER_HUB_ALIASES.has(name) ? DOCKER_HUB : name;
}

function defaultBaseUrl(name: string): string {
  if (name === DOCKER_HUB) return "https://registry-1.docker.io";
  return `${isLoopback(name) ? "http" : "https"}://${name}`;
}

/** As containerd and Docker have it: registries on this machine speak plain HTTP unless told otherwise. */
function isLoopback(host: string): boolean {
  const name = host.replace(/:\d+$/, "");
  return name === "localhost" || name.endsWith(".localhost") || name === "[::1]" || /^127(?:\.\d{1,3}){3}$/.test(name);
}

function checkedBaseUrl(config: RegistryConfig): string {
  const url = URL.parse(config.url);
  const isPlain = url !== null && url.search === "" && url.hash === "" && url.username === "" && url.password === "";
  if (!isPlain || !/^https?:$/.test(url.protocol)) {
    throw new AppError(
      "CONFIG_INVALID",
      `the url of the registry ${config.host} is not of the form https://host[:port][/path]; ` +
        "leave out credentials, query and fragment",
    );
  }
  return url.href.replace(/\/+$/, "").replace(/\/v2$/, "");
}

const DOCKER_HUB = "docker.io";
const DOCKER_HUB_ALIASES: ReadonlySet<string> = new Set(["docker.io", "index.docker.io", "registry-1.docker.io"]);
