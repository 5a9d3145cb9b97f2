import { once } from "node:events";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

import type { Asked } from "./asked.ts";
import type { Lab } from "./processes.ts";

/** One file as its server would give it if it were well; `answer` bends that. */
export interface OddFile {
  content: Buffer;
  /** As sent; undefined = none. */
  etag?: string | undefined;
  lastModified?: string | undefined;
  /** False: the file comes whole whatever was asked. Default true. */
  ranges?: boolean;
  /** False: chunked. Default true. */
  length?: boolean;
  /** False: conditions are not looked at. Default true. */
  conditional?: boolean;
  /** Sent with every answer. */
  headers?: Readonly<Record<string, string>>;
  /** Answers itself and says so with true. `n` counts this file's GETs from 1, HEADs and questions of one byte apart. */
  answer?: (request: IncomingMessage, response: ServerResponse, n: number) => boolean;
}

/** A web server whose every file may be odd in its own way, and which notes what it was asked. */
export class OddOrigin {
  readonly url: string;
  readonly files: Map<string, OddFile> = new Map();
  readonly #log: Asked[] = [];
  readonly #gets = new Map<string, number>();

  private constructor(server: Server) {
    this.url = `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
    server.on("request", (request, response) => this.#note(request, response));
  }

  static async start(lab: Lab): Promise<OddOrigin> {
    const server = createServer();
    server.listen(0, "127.0.0.1");
    await once(server, "listening");
    lab.onClose(() => {
      server.close();
      server.closeAllConnections();
    });
    return new OddOrigin(server);
  }

  /** In the order of the answers. */
  asked(path: string): Asked[] {
    return this.#log.filter((entry) => entry.path === path);
  }

  #note(request: IncomingMessage, response: ServerResponse): void {
    const path = new URL(request.url ?? "/", this.url).pathname;
    const { headers, method = "" } = request;
    response.on("error", () => undefined);
    response.once("close", () => {
      this.#log.push({
        method,
        path,
        status: response.statusCode,
        range: headers.range,
        ifNoneMatch: headers["if-none-match"],
        ifModifiedSince: headers["if-modified-since"],
      });
    });
    const file = this.files.get(path);
    if (file === undefined) return void response.writeHead(404, { "content-length": "0" }).end();
    const isGet = method === "GET" && headers.range !== "bytes=0-0";
    const n = (this.#gets.get(path) ?? 0) + (isGet ? 1 : 0);
    this.#gets.set(path, n);
    if (file.answer?.(request, response, n) === true) return;
    answerWell(file, request, response);
  }
}

/** As a good server would. */
export function answerWell(file: OddFile, request: IncomingMessage, response: ServerResponse): void {
  const { content, etag, lastModified, ranges = true, length = true, conditional = true } = file;
  const { headers, method } = request;
  const facts: Record<string, string> = { ...file.headers };
  if (etag !== undefined) facts["etag"] = etag;
  if (lastModified !== undefined) facts["last-modified"] = lastModified;
  const opaque = (text: string | undefined): string | undefined => text?.replace(/^W\//, "");
  if (conditional && headers["if-match"] !== undefined && headers["if-match"] !== etag) {
    return void response.writeHead(412, { ...facts, "content-length": "0" }).end();
  }
  const isSame =
    headers["if-none-match"] === undefined
      ? headers["if-modified-since"] !== undefined && headers["if-modified-since"] === lastModified
      : opaque(headers["if-none-match"]) === opaque(etag);
  if (conditional && isSame) return void response.writeHead(304, facts).end();
  const match = ranges ? /^bytes=(\d+)-(\d*)$/.exec(headers.range ?? "") : null;
  const start = Number(match?.[1] ?? 0);
  const end = Math.min(content.length, match?.[2] ? Number(match[2]) + 1 : content.length);
  if (ranges) facts["accept-ranges"] = "bytes";
  if (match !== null) facts["content-range"] = `bytes ${start}-${end - 1}/${content.length}`;
  if (length) facts["content-length"] = String(end - start);
  response.writeHead(match === null ? 200 : 206, facts);
  response.flushHeaders();
  response.end(method === "HEAD" ? undefined : content.subarray(start, end));
}
