import type { Dispatcher } from "undici";
import { createDispatcher, type OriginPlace } from "./http-dispatcher.ts";
import { HttpOrigin } from "./http-origin.ts";
import type { Origin, OriginBody, OriginInfo, OriginRequest, RegistryCredentials } from "./origin.ts";
import { NO_PROXIES } from "./proxy-routes.ts";
import type { ProxySettings } from "./proxy-routes.ts";
import { RegistryOrigin } from "./registry-auth.ts";

/** A server about which there is something to know. */
export interface OriginServer {
  /** Scheme, host and port as in `URL.origin`: `https://reg.example:5000`. */
  readonly origin: string;
  /** Authorities to trust for it beside the default ones, PEM. */
  readonly caCertificates: readonly string[];
  /** Secret. What we log in with when it asks for that, for callers without credentials of their own. */
  readonly credentials: RegistryCredentials | undefined;
  /** Set for one that is not where its name says. */
  readonly place?: OriginPlace;
}

/** How a program reaches origins. */
export interface OriginNetwork {
  readonly servers: readonly OriginServer[];
  readonly proxies: ProxySettings;
}

export const PLAIN_NETWORK: OriginNetwork = { servers: [], proxies: NO_PROXIES };

/** What speaks to one server. */
export interface OriginClient {
  /** With the token dance of registries. */
  readonly origin: RegistryOrigin;
  /** The same connections' kin, for questions that are no file. */
  readonly dispatcher: Dispatcher;
}

/**
 * Any file's origin over HTTP, with the token dance of registries; each server with the authorities and the credentials
 * configured for it, through the proxies configured.
 *
 * A redirect stays with the client of the server that was asked: a registry's store may have a certificate of the same
 * authority. Credentials go to their own origin and the token service that it names, nowhere else.
 */
export class OriginClients implements Origin {
  readonly #options: OriginNetwork & { readonly userAgent: string };
  readonly #servers: ReadonlyMap<string, OriginServer>;
  readonly #clients = new Map<string, OriginClient & { readonly http: HttpOrigin }>();

  constructor(options: Partial<OriginNetwork> & { readonly userAgent: string }) {
    this.#options = { ...PLAIN_NETWORK, ...options };
    this.#servers = new Map(this.#options.servers.map((server) => [server.origin, server]));
  }

  /** @param url of a file, or a server's base */
  clientFor(url: string): OriginClient {
    const server = this.#servers.get(URL.parse(url)?.origin ?? "");
    // What nothing is known about shares its pools.
    const key = server?.origin ?? "";
    let client = this.#clients.get(key);
    if (client === undefined) {
      const { userAgent, proxies } = this.#options;
      const caCertificates = server?.caCertificates ?? [];
      const credentials = server?.credentials;
      const place = server?.place;
      const http = new HttpOrigin({ userAgent, caCertificates, proxies, place });
      const known = new Map(server === undefined || credentials === undefined ? [] : [[server.origin, credentials]]);
      client = {
        http,
        origin: new RegistryOrigin(http, { credentials: known }),
        dispatcher: createDispatcher({ caCertificates, proxies, place }),
      };
      this.#clients.set(key, client);
    }
    return client;
  }

  stat(request: OriginRequest, signal: AbortSignal, known?: OriginInfo): Promise<OriginInfo> {
    return this.clientFor(request.url).origin.stat(request, signal, known);
  }

  open(
    request: OriginRequest,
    range: { readonly startByte: number; readonly endByte: number | undefined },
    expected: OriginInfo | undefined,
    signal: AbortSignal,
  ): Promise<OriginBody> {
    return this.clientFor(request.url).origin.open(request, range, expected, signal);
  }

  /** Hangs up on everyone. */
  async close(): Promise<void> {
    const clients = [...this.#clients.values()];
    this.#clients.clear();
    await Promise.all(clients.flatMap(({ http, dispatcher }) => [http.close(), dispatcher.destroy()]));
  }
}
