import { createReadStream } from "node:fs";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { pipeline } from "node:stream/promises";

/** A web server with one file, which counts what leaves it. */
export class DemoOrigin {
  sentBytes = 0;
  requestCount = 0;
  readonly #server: Server;
  readonly #path: string;
  readonly #lengthBytes: number;

  private constructor(path: string, lengthBytes: number) {
    this.#path = path;
    this.#lengthBytes = lengthBytes;
    this.#server = createServer((request, response) => void this.#answer(request, response));
  }

  static async start(path: string, lengthBytes: number): Promise<DemoOrigin> {
    const origin = new DemoOrigin(path, lengthBytes);
    await new Promise<void>((resolve) => origin.#server.listen(0, "127.0.0.1", resolve));
    return origin;
  }

  get url(): string {
    return `http://127.0.0.1:${(this.#server.address() as AddressInfo).port}/release.tar`;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    this.requestCount++;
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = Number(range?.[1] ?? 0);
    const end = Math.min(
      range?.[2] === undefined || range[2] === "" ? this.#lengthBytes - 1 : Number(range[2]),
      this.#lengthBytes - 1,
    );
    response.setHeader("accept-ranges", "bytes");
    response.setHeader("etag", '"demo-1"');
    response.setHeader("content-type", "application/x-tar");
    response.setHeader("content-length", end - start + 1);
    if (range !== null) response.setHeader("content-range", `bytes ${start}-${end}/${this.#lengthBytes}`);
    response.writeHead(range === null ? 200 : 206);
    if (request.method === "HEAD") {
      response.end();
      return;
    }
    const body = createReadStream(this.#path, { start, end, highWaterMark: 256 * 1024 });
    body.on("data", (chunk) => (this.sentBytes += chunk.length));
    // A reader may hang up: that is his affair.
    await pipeline(body, response).catch(() => undefined);
  }
}
