import { BlockList, isIP } from "node:net";

/** Through which proxies origins are reached. URLs may hold credentials: secret, never logged. */
export interface ProxySettings {
  /** For `http:` origins: `http://user:password@host:port`, or `https:`. */
  readonly httpUrl: string | undefined;
  /** For `https:` origins, by CONNECT. */
  readonly httpsUrl: string | undefined;
  /** Hosts that are reached without, as in NO_PROXY: `example.org,*.corp,10.0.0.0/8,reg.example:5000` or `*`. */
  readonly except: string;
}

export const NO_PROXIES: ProxySettings = { httpUrl: undefined, httpsUrl: undefined, except: "" };

/**
 * Which proxy leads to an origin.
 *
 * An entry `name` or `.name` of the exceptions means the host and all below it, `*.name` those below it, an address
 * itself, a CIDR the addresses in it (names are not looked up), `*` everything; each but the CIDR may end in `:port`.
 * This machine (`localhost`, loopback addresses) is never reached through a proxy, as in Go's clients.
 */
export class ProxyRoutes {
  readonly #http: URL | undefined;
  readonly #https: URL | undefined;
  readonly #networks = new BlockList();
  readonly #exceptions: readonly Exception[];

  /** @throws TypeError for a proxy that is no URL */
  constructor(settings: ProxySettings) {
    this.#http = settings.httpUrl === undefined ? undefined : new URL(settings.httpUrl);
    this.#https = settings.httpsUrl === undefined ? undefined : new URL(settings.httpsUrl);
    const entries = settings.except.split(/[\s,]+/).filter((entry) => entry !== "");
    this.#exceptions = entries.flatMap((entry) => (this.#addNetwork(entry) ? [] : [parseException(entry)]));
  }

  /** @returns undefined: directly */
  proxyFor(origin: URL): URL | undefined {
    const proxy = origin.protocol === "https:" ? this.#https : this.#http;
    if (proxy === undefined) return undefined;
    const host = plainHost(origin.hostname);
    const port = origin.port === "" ? (origin.protocol === "https:" ? 443 : 80) : Number(origin.port);
    return isLoopbackHost(host) || this.#isExcepted(host, port) ? undefined : proxy;
  }

  #addNetwork(entry: string): boolean {
    const [, address = "", bits = ""] = /^([0-9a-f.:]+)\/(\d{1,3})$/i.exec(entry) ?? [];
    const family = isIP(address);
    if (family === 0 || Number(bits) > (family === 4 ? 32 : 128)) return false;
    this.#networks.addSubnet(address, Number(bits), family === 4 ? "ipv4" : "ipv6");
    return true;
  }

  #isExcepted(host: string, port: number): boolean {
    const family = isIP(host);
    if (family !== 0 && this.#networks.check(host, family === 4 ? "ipv4" : "ipv6")) return true;
    return this.#exceptions.some((exception) => {
      if (exception.port !== undefined && exception.port !== port) return false;
      if (exception.name === "*") return true;
      return (exception.itself && host === exception.name) || host.endsWith(`.${exception.name}`);
    });
  }
}

interface Exception {
  readonly name: string;
  readonly port: number | undefined;
  /** The name itself is meant too, not only what is below it. */
  readonly itself: boolean;
}

function parseException(entry: string): Exception {
  const [, bare = entry, port] = /^(\[[^\]]+\]|[^:]+):(\d{1,5})$/.exec(entry) ?? [];
  const name = plainHost(bare).replace(/^\*?\.(?=.)/, "");
  return { name, port: port === undefined ? undefined : Number(port), itself: !bare.startsWith("*.") };
}

/** True for names and addresses of this machine. `host` without brackets. */
export function isLoopbackHost(host: string): boolean {
  return /^(?:localhost|.+\.localhost|::1|(?:::ffff:)?127(?:\.\d{1,3}){3})$/.test(host);
}

/** Lower case, without the brackets of an IPv6 address and the dot of the root. */
function plainHost(hostname: string): string {
  return hostname.toLowerCase().replace(/^\[(.+)\]$/, "$1").replace(/(.)\.$/, "$1");
}
