import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";

import { freePort } from "../../lib/ports.ts";
import { answersTcp, type Lab, type Service, waitFor } from "./processes.ts";
import { RequestLog, type ServedRequest } from "./requests.ts";
import type { TokenServer } from "./token-server.ts";

/**
 * Debian's docker-registry on a loopback port that only this process knows, behind a proxy that counts. The registry's
 * own log lacks the ranges of answers that were cut short; the proxy knows for each request which bytes it sent.
 */
export class Registry {
  readonly log: RequestLog = new RequestLog();
  /** Where clients reach it: through the counting proxy. */
  readonly url: string;
  /** The registry itself, for pushing: it asks nobody for a token. */
  readonly backUrl: string;
  readonly #address: string;
  readonly #port: number;
  readonly #proxy: ReturnType<typeof createServer>;

  private constructor(backUrl: string, frontPort: number, address: string, port: number) {
    this.backUrl = backUrl;
    this.#address = address;
    this.#port = port;
    this.url = `http://${address}:${port}`;
    this.#proxy = createServer((request, response) => {
      void this.#forward(request, response, frontPort);
    });
  }

  /** @param tokens who may read at `url` what; everybody everything when absent */
  static async start(lab: Lab, address: string, port: number, tokens?: TokenServer): Promise<Registry> {
    const backPort = await startService(lab, "docker-registry", "");
    const frontPort = tokens === undefined ? backPort : await startService(lab, "docker-registry-front", tokens.registryConfig);
    const registry = new Registry(`http://127.0.0.1:${backPort}`, frontPort, address, port);
    await registry.resume();
    lab.onClose(() => {
      registry.#proxy.close();
      registry.#proxy.closeAllConnections();
    });
    return registry;
  }

  /** From here on nobody reaches it: connections are refused. */
  async stop(): Promise<void> {
    this.#proxy.closeAllConnections();
    await new Promise((resolve) => this.#proxy.close(resolve));
  }

  /** After a stop: it is reached again. */
  async resume(): Promise<void> {
    await new Promise<void>((resolve, reject) => {
      this.#proxy.once("error", reject);
      this.#proxy.listen(this.#port, this.#address, resolve);
    });
  }

  async #forward(request: IncomingMessage, response: ServerResponse, frontPort: number): Promise<void> {
    const url = new URL(request.url ?? "/", "http://registry");
    const entry = this.log.open({
      method: request.method ?? "GET",
      path: url.pathname,
      query: url.search,
      rangeHeader: request.headers.range,
      from: request.socket.remoteAddress ?? "",
      userAgent: request.headers["user-agent"] ?? "",
      authorization: request.headers.authorization,
    });
    try {
      const answer = await new Promise<IncomingMessage>((resolve, reject) => {
        const upstream = httpRequest(
          { host: "127.0.0.1", port: frontPort, method: request.method, path: request.url, headers: request.headers },
          resolve,
        );
        upstream.once("error", reject);
        response.once("close", () => upstream.destroy());
        request.pipe(upstream);
      });
      entry.status = answer.statusCode ?? 0;
      entry.start = firstByteOf(answer);
      response.writeHead(entry.status, answer.rawHeaders);
      await pipeline(answer, counting(entry), response);
    } catch {
      // The client hung up, or the registry is being stopped. Either way this exchange is over.
      response.destroy();
    }
  }
}

/** Starts a docker-registry on the lab's one storage. @returns its port on the loopback */
async function startService(lab: Lab, name: string, auth: string): Promise<number> {
  const port = await freePort();
  const config = lab.writeFile(
    `${name}.yml`,
    [
      "version: 0.1",
      "log: { level: warn, accesslog: { disabled: true } }",
      `storage: { filesystem: { rootdirectory: "${lab.makeDir("registry")}" }, delete: { enabled: true } }`,
      `http: { addr: "127.0.0.1:${port}", relativeurls: true }`,
      auth,
      "",
    ].join("\n"),
  );
  const service: Service = lab.start(name, ["docker-registry", "serve", config]);
  await waitFor("the registry answers", async () => await answersTcp("127.0.0.1", port), { services: [service] });
  return port;
}

function counting(entry: ServedRequest): (source: AsyncIterable<Buffer>) => AsyncGenerator<Buffer> {
  return async function* count(source) {
    for await (const chunk of source) {
      entry.bytes += chunk.length;
      yield chunk;
    }
  };
}

function firstByteOf(answer: IncomingMessage): number {
  return Number(/^bytes (\d+)-/.exec(answer.headers["content-range"] ?? "")?.[1] ?? 0);
}
