/** From the settings about origins to what src/origin is given: their files read. */
import { readFileSync } from "node:fs";
import type { OriginNetwork, OriginServer } from "../origin/origin-clients.ts";
import type { ListenAddress } from "../peer/config.ts";
import { isLoopback } from "./addresses.ts";
import { invalidConfig } from "./config.ts";
import type { OriginSetting } from "./network-kinds.ts";
import type { RegistrySetting } from "./setting-kinds.ts";

interface NetworkValues {
  readonly origins: readonly OriginSetting[];
  readonly httpProxy: string | undefined;
  readonly httpsProxy: string | undefined;
  readonly noProxy: string;
}

/** @throws AppError CONFIG_INVALID for a file that cannot be read, or holds nothing of its kind */
export function originNetwork(values: NetworkValues, registries: readonly RegistrySetting[] = []): OriginNetwork {
  const problems: string[] = [];
  const servers = new Map<string, OriginServer>();
  const add = (origin: string, caFile: string | undefined, credentials: OriginServer["credentials"]): void => {
    const known = servers.get(origin);
    const { credentials: before } = known ?? {};
    if (before !== undefined && credentials !== undefined && (before.username !== credentials.username || before.password !== credentials.password)) {
      problems.push(`${origin} is given two logins, of which one would be used for all: leave one of them out of origins and registries`);
    }
    const caCertificates = [...(known?.caCertificates ?? []), ...(caFile === undefined ? [] : [readAuthorities(caFile, problems)])];
    servers.set(origin, { origin, caCertificates, credentials: credentials ?? known?.credentials });
  };
  for (const { url, caFile, username, passwordFile } of [...values.origins, ...registries]) {
    if (caFile === undefined && username === undefined) continue;
    const password = passwordFile === undefined ? undefined : readPassword(passwordFile, problems);
    add(new URL(url).origin, caFile, username === undefined || password === undefined ? undefined : { username, password });
  }
  if (problems.length > 0) throw invalidConfig(problems);
  const proxies = { httpUrl: values.httpProxy, httpsUrl: values.httpsProxy, except: values.noProxy };
  return { servers: [...servers.values()], proxies };
}

/** @throws AppError CONFIG_INVALID when a proxy on the way to origins is the very listener that asks them */
export function refuseOwnProxy({ proxies }: OriginNetwork, listen: ListenAddress): void {
  for (const text of [proxies.httpUrl, proxies.httpsUrl]) {
    const url = text === undefined ? null : URL.parse(text);
    if (url === null || !isLoopback(url.hostname.replace(/^\[(.+)\]$/, "$1")) || Number(url.port) !== listen.port) continue;
    throw invalidConfig([
      `the proxy ${url.host} is this dfdaemon itself, which would ask itself for ever; it may come from the environment: ` +
        "say --https-proxy none and --http-proxy none, or name the proxy behind it",
    ]);
  }
}

/** @throws AppError CONFIG_INVALID for a file that does not begin with `user:password` */
export function proxyCredentials(file: string | undefined): { readonly username: string; readonly password: string } | undefined {
  if (file === undefined) return undefined;
  const problems: string[] = [];
  const [line = ""] = (readText(file, problems) ?? "").split(/\r?\n/, 1);
  const [, username, password] = /^([^:\s]+):(\S+)\s*$/.exec(line) ?? [];
  if (username !== undefined && password !== undefined) return { username, password };
  throw invalidConfig(problems.length > 0 ? problems : [`the first line of ${file} is not user:password`]);
}

function readAuthorities(file: string, problems: string[]): string {
  const text = readText(file, problems);
  if (text !== undefined && !text.includes("-----BEGIN CERTIFICATE-----")) problems.push(`${file} holds no certificate in PEM`);
  return text ?? "";
}

function readPassword(file: string, problems: string[]): string {
  const [password = ""] = (readText(file, problems) ?? "-").split(/\r?\n/, 1);
  if (password === "") problems.push(`the first line of ${file}, which is to be a password, is empty`);
  return password;
}

function readText(file: string, problems: string[]): string | undefined {
  try {
    return readFileSync(file, "utf8");
  } catch (thrown) {
    problems.push(`cannot read ${file}: ${(thrown as Error).message}`);
    return undefined;
  }
}
