import { createServer, request as httpRequest, type IncomingMessage, type ServerResponse } from "node:http";
import { pipeline } from "node:stream/promises";

import { freePort } from "./ports.ts";
import { answersHttp, type Lab, type Service, waitFor } from "./processes.ts";
import { RequestLog, type ServedRequest } from "./requests.ts";

/**
 * Debian's docker-registry on a loopback port that only this process knows, behind a proxy that counts. The registry's
 * own log lacks the ranges of answers that were cut short; the proxy knows for each request which bytes it sent.
 */
export class Registry {
  readonly log: RequestLog = new RequestLog();
  /** Where clients reach it: through the counting proxy. */
  readonly url: string;
  /** The registry itself, for pushing. */
  readonly backUrl: string;
  readonly #service: Service;
  readonly #proxy: ReturnType<typeof createServer>;

  private constructor(service: Service, backPort: number, address: string, port: number) {
    this.#service = service;
    this.backUrl = `http://127.0.0.1:${backPort}`;
    this.url = `http://${address}:${port}`;
    this.#proxy = createServer((request, response) => {
      void this.#forward(request, response, backPort);
    });
  }

  static async start(lab: Lab, address: string, port: number): Promise<Registry> {
    const backPort = await freePort();
    const config = lab.writeFile(
      "registry.yml",
      [
        "version: 0.1",
        "log: { level: warn, accesslog: { disabled: true } }",
        `storage: { filesystem: { rootdirectory: "${lab.makeDir("registry")}" } }`,
        `http: { addr: "127.0.0.1:${backPort}", relativeurls: true }`,
        "",
      ].join("\n"),
    );
    const service = lab.start("docker-registry", ["docker-registry", "serve", config]);
    const registry = new Registry(service, backPort, address, port);
    await waitFor("the registry answers", async () => await answersHttp(`${registry.backUrl}/v2/`), {
      services: [service],
    });
    await new Promise<void>((resolve, reject) => {
      registry.#proxy.once("error", reject);
      registry.#proxy.listen(port, address, resolve);
    });
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
    await this.#service.stop();
  }

  async #forward(request: IncomingMessage, response: ServerResponse, backPort: number): Promise<void> {
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
          { host: "127.0.0.1", port: backPort, method: request.method, path: request.url, headers: request.headers },
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
