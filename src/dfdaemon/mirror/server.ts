import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { Duplex } from "node:stream";
import { AppError } from "../../base/errors.ts";
import type { ListenAddress } from "../../peer/config.ts";
import { CONNECTION_LIMITS, CONNECTIONS_MAX, IDLE_MS_MAX } from "../connection-limits.ts";
import type { Proxy } from "../proxy/proxy.ts";
import { isForUpgrade } from "../proxy/upgrade.ts";
import type { Mirror } from "./mirror.ts";

export interface MirrorServerDeps {
  readonly mirror: Mirror;
  /** For clients who were told that this is their proxy; absent: there is none. */
  readonly proxy?: Proxy;
  readonly version: string;
  /** May engines be sent here? */
  readonly isReady: () => boolean;
  /** Everything to be scraped, in the Prometheus text format. */
  readonly metricsText: () => Promise<string>;
}

/** The port that engines and operators speak to: the mirror, the proxy, `/healthz`, `/readyz`, `/metrics`, `/version`. */
export class MirrorServer {
  readonly #deps: MirrorServerDeps;
  readonly #server: Server;
  #draining = false;

  private constructor(deps: MirrorServerDeps) {
    this.#deps = deps;
    const { proxy } = deps;
    const mayUpgrade = (request: IncomingMessage): boolean => proxy?.handles(request) === true && isForUpgrade(request);
    const onRequest = (request: IncomingMessage, response: ServerResponse): void => this.#onRequest(request, response);
    this.#server = createServer({ ...CONNECTION_LIMITS, shouldUpgradeCallback: mayUpgrade }, onRequest);
    this.#server.on("checkContinue", onRequest);
    if (proxy !== undefined) {
      const serve = (opened: Duplex): void => void this.#server.emit("connection", opened);
      this.#server.on("connect", (request, socket, head) => proxy.handleConnect(request, socket, head, serve));
      this.#server.on("upgrade", (request, socket, head) => proxy.handleUpgrade(request, socket, head));
    }
    this.#server.setTimeout(IDLE_MS_MAX);
    this.#server.maxConnections = CONNECTIONS_MAX;
  }

  /** @throws AppError LISTEN_FAILED */
  static async listen(address: ListenAddress, deps: MirrorServerDeps): Promise<MirrorServer> {
    const listening = new MirrorServer(deps);
    const server = listening.#server;
    const { promise, resolve, reject } = Promise.withResolvers<void>();
    server.once("error", reject);
    server.listen({ host: address.host, port: address.port, backlog: BACKLOG }, resolve);
    try {
      await promise;
    } catch (cause) {
      const reason = cause instanceof Error ? cause.message : String(cause);
      throw new AppError(
        "LISTEN_FAILED",
        `cannot listen on ${address.host}:${address.port} for container engines: ${reason}; ` +
          "stop what uses the port, or choose another with --listen",
        { cause },
      );
    }
    server.off("error", reject);
    return listening;
  }

  /** Where it listens; the port is the real one. */
  get address(): ListenAddress {
    const { address, port } = this.#server.address() as AddressInfo;
    return { host: address, port };
  }

  /** Accepts no more, lets answers that have begun go on for `graceMs`, then cuts them. */
  async close(graceMs: number): Promise<void> {
    this.#draining = true;
    const { promise, resolve } = Promise.withResolvers<void>();
    this.#server.close(() => resolve());
    const timer = setTimeout(() => {
      this.#server.closeAllConnections();
      // Clients who wait for a server to speak another protocol are none of these connections any more: they go with theirs.
      this.#deps.proxy?.disconnect();
    }, graceMs);
    await Promise.all([promise, this.#deps.proxy?.close(graceMs)]);
    clearTimeout(timer);
    this.#deps.proxy?.disconnect();
  }

  #onRequest(request: IncomingMessage, response: ServerResponse): void {
    // Sent before the answer to the one before it was over (apt does): until its turn comes its answer has no connection, like one whose client is gone.
    if (response.socket === null) return void response.once("socket", () => this.#onRequest(request, response));
    // An engine that resets its connection says so by an event that nobody else listens to.
    request.on("error", () => {});
    response.on("error", () => {});
    response.shouldKeepAlive &&= !this.#draining;
    response.once("close", () => {
      if (this.#draining) setImmediate(() => this.#server.closeIdleConnections());
    });
    const target = request.url ?? "";
    if (this.#deps.proxy?.handles(request) === true) this.#deps.proxy.handle(request, response);
    else if (this.#deps.mirror.handles(target)) void this.#deps.mirror.handle(request, response);
    else void this.#answerOperator(target, request, response);
  }

  async #answerOperator(target: string, request: IncomingMessage, response: ServerResponse): Promise<void> {
    const [path] = target.split("?", 1);
    if (request.method !== "GET" && request.method !== "HEAD") {
      response.setHeader("allow", "GET, HEAD");
      return sendText(response, 405, "only GET and HEAD\n");
    }
    switch (path) {
      case "/healthz":
        return sendText(response, 200, "ok\n");
      case "/readyz":
        return this.#deps.isReady() && !this.#draining ? sendText(response, 200, "ok\n") : sendText(response, 503, "not ready\n");
      case "/version":
        return sendText(response, 200, `${JSON.stringify({ version: this.#deps.version })}\n`, "application/json");
      case "/metrics":
        return this.#answerMetrics(response);
      case "/proxy-ca.pem":
        return sendText(response, ...this.#proxyAuthority());
      default:
        return sendText(response, 404, "not found: this is dfdaemon, a registry mirror under /v2/\n");
    }
  }

  #proxyAuthority(): [status: number, text: string, contentType?: string] {
    const pem = this.#deps.proxy?.authorityPem;
    if (pem === undefined) return [404, "this dfdaemon ends no TLS: proxyIntercept names no hosts\n"];
    return [200, pem, "application/x-pem-file"];
  }

  async #answerMetrics(response: ServerResponse): Promise<void> {
    try {
      sendText(response, 200, await this.#deps.metricsText(), "text/plain; version=0.0.4; charset=utf-8");
    } catch {
      sendText(response, 500, "the metrics could not be collected\n");
    }
  }
}

function sendText(response: ServerResponse, status: number, text: string, contentType = "text/plain; charset=utf-8"): void {
  response.writeHead(status, { "content-type": contentType, "content-length": Buffer.byteLength(text) });
  response.end(text);
}

/** Connections that wait to be accepted: with Node's 511, a thousand pulls that begin at once have some reset. */
const BACKLOG = 4096;
