import { createHash, randomBytes } from "node:crypto";
import { once } from "node:events";
import { createServer, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import { setTimeout as delay } from "node:timers/promises";

import type { Lab } from "./processes.ts";

const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const CHUNK_BYTES = 16 * 1024;

/** One request for a manifest or a blob. */
export interface HostileRequest {
  readonly kind: "manifest" | "blob";
  readonly method: string;
  /** How often the same has been asked, this time included. */
  readonly n: number;
  /** First byte asked for. */
  readonly start: number;
  readonly lengthBytes: number;
}

/** What a registry does with a request instead of answering it well. */
export interface HostileAct {
  /** Answers with this and no content. */
  readonly status?: number;
  readonly headers?: Readonly<Record<string, string>>;
  /** Breaks the connection without a word. */
  readonly reset?: boolean;
  /** Says nothing, and keeps the connection. */
  readonly silent?: boolean;
  /** Breaks the connection, or says no more, after so many bytes of the body. */
  readonly cutAfter?: number;
  readonly stallAfter?: number;
  /** Sends another byte at this offset of the blob. */
  readonly corruptAt?: number;
  /** Claims another length than the content has, by this much. */
  readonly lengthOff?: number;
  /** Sends no more than so many bytes a second. */
  readonly bytesPerSecond?: number;
  /** Knows neither `Range` nor the length of what it sends. */
  readonly plain?: boolean;
  /** Answers a range with bytes from another place, by this much, and says so. */
  readonly rangeOff?: number;
  /** Says neither length nor digest in answers to HEAD. */
  readonly mute?: boolean;
  /** Sends the client for the content to another server. */
  readonly redirect?: boolean;
}

export type Hostility = (request: HostileRequest) => HostileAct | undefined;

export interface HostileImage {
  readonly repository: string;
  readonly manifest: Buffer;
  readonly digest: string;
  readonly blobs: ReadonlyMap<string, Buffer>;
}

/** A registry whose repositories each misbehave in a way of their own. */
export class HostileRegistry {
  readonly url: string;
  readonly #elsewhere: string;
  readonly #images = new Map<string, { readonly image: HostileImage; readonly hostility: Hostility }>();
  readonly #asked = new Map<string, number>();

  private constructor(url: string, elsewhere: string) {
    this.url = url;
    this.#elsewhere = elsewhere;
  }

  static async start(lab: Lab): Promise<HostileRegistry> {
    const servers = [createServer(), createServer()] as const;
    const [here, elsewhere] = await Promise.all(
      servers.map(async (server) => {
        server.listen(0, "127.0.0.1");
        await once(server, "listening");
        return `127.0.0.1:${(server.address() as AddressInfo).port}`;
      }),
    );
    const registry = new HostileRegistry(`http://${here}`, elsewhere ?? "");
    for (const server of servers) {
      server.on("request", (request, response) => void registry.#answer(request, response));
      lab.onClose(() => {
        server.close();
        server.closeAllConnections();
      });
    }
    return registry;
  }

  /** Puts an image of random layers under `repository:v1`. */
  put(repository: string, layerBytes: readonly number[], hostility: Hostility): HostileImage {
    const config = Buffer.from(JSON.stringify({ architecture: "amd64", os: "linux", rootfs: { type: "layers", diff_ids: [] } }));
    const blobs = new Map([config, ...layerBytes.map((bytes) => randomBytes(bytes))].map((blob) => [digestOf(blob), blob]));
    const [configDescriptor, ...layers] = [...blobs].map(([digest, blob], i) => ({
      mediaType: i === 0 ? "application/vnd.oci.image.config.v1+json" : "application/vnd.oci.image.layer.v1.tar",
      digest,
      size: blob.length,
    }));
    const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_TYPE, config: configDescriptor, layers }));
    const image = { repository, manifest, digest: digestOf(manifest), blobs };
    this.#images.set(repository, { image, hostility });
    return image;
  }

  async #answer(request: IncomingMessage, response: ServerResponse): Promise<void> {
    response.on("error", () => undefined);
    const url = new URL(request.url ?? "/", this.url);
    const parts = /^\/v2\/(.+)\/(manifests|blobs)\/(.+)$/.exec(url.pathname);
    const [, repository = "", type = "", reference = ""] = parts ?? [];
    const stored = this.#images.get(repository);
    if (stored === undefined) return end(response, url.pathname === "/v2/" ? 200 : 404, {});
    const { image, hostility } = stored;
    const kind = type === "manifests" ? "manifest" : "blob";
    const isManifest = reference === "v1" || reference === image.digest;
    const content = kind === "blob" ? image.blobs.get(reference) : isManifest ? image.manifest : undefined;
    if (content === undefined) return end(response, 404, {});
    const method = request.method ?? "";
    const key = `${method} ${url.pathname}`;
    const n = (this.#asked.get(key) ?? 0) + 1;
    this.#asked.set(key, n);
    const range = rangeOf(request.headers.range, content.length);
    const lengthBytes = content.length;
    const isElsewhere = request.headers.host === this.#elsewhere;
    const act = hostility({ kind, method, n, start: range?.start ?? 0, lengthBytes }) ?? {};
    if (act.redirect === true && !isElsewhere) return end(response, 307, { location: `http://${this.#elsewhere}${url.pathname}` });
    await perform(response, { method, content, range, contentType: kind === "blob" ? "application/octet-stream" : MANIFEST_TYPE, act });
  }
}

async function perform(
  response: ServerResponse,
  answer: {
    readonly method: string;
    readonly content: Buffer;
    readonly range: { readonly start: number; readonly end: number } | undefined;
    readonly contentType: string;
    readonly act: HostileAct;
  },
): Promise<void> {
  const { method, content, contentType, act } = answer;
  if (act.silent === true) return;
  if (act.reset === true) return void response.socket?.resetAndDestroy();
  if (act.status !== undefined) return end(response, act.status, act.headers ?? {});
  const range = act.plain === true ? undefined : answer.range;
  const start = range === undefined ? 0 : range.start + (act.rangeOff ?? 0);
  const end_ = range?.end ?? content.length;
  const headers: Record<string, string> = { "content-type": contentType };
  if (act.mute !== true) headers["docker-content-digest"] = digestOf(content);
  if (act.plain !== true && !(act.mute === true && method === "HEAD")) {
    headers["content-length"] = String(Math.max(0, end_ - start + (act.lengthOff ?? 0)));
    headers["accept-ranges"] = "bytes";
  }
  if (range !== undefined) headers["content-range"] = `bytes ${start}-${end_ - 1}/${content.length}`;
  response.writeHead(range === undefined ? 200 : 206, headers);
  if (method === "HEAD") return void response.end();
  response.flushHeaders();
  const body = Buffer.from(content.subarray(start, end_ + Math.min(0, act.lengthOff ?? 0)));
  const at = (act.corruptAt ?? -1) - start;
  if (at >= 0 && at < body.length) body[at] = (body[at] as number) ^ 1;
  const stopAfter = act.cutAfter ?? act.stallAfter ?? body.length;
  for (let sent = 0; sent < Math.min(stopAfter, body.length) && !response.destroyed; sent += CHUNK_BYTES) {
    const chunk = body.subarray(sent, Math.min(sent + CHUNK_BYTES, stopAfter, body.length));
    if (act.bytesPerSecond !== undefined) await delay((chunk.length / act.bytesPerSecond) * 1000);
    if (response.write(chunk)) continue;
    // Who loses the race takes its listeners with it.
    const settled = new AbortController();
    await Promise.race([once(response, "drain", settled), once(response, "close", settled)]).finally(() => settled.abort());
  }
  if (act.stallAfter !== undefined) return;
  if (act.cutAfter === undefined && (act.lengthOff ?? 0) <= 0) return void response.end();
  // What was written so far still arrives.
  await delay(20);
  response.destroy();
}

function end(response: ServerResponse, status: number, headers: Readonly<Record<string, string>>): void {
  response.writeHead(status, { "content-length": "0", ...headers });
  response.end();
}

function rangeOf(header: string | undefined, total: number): { readonly start: number; readonly end: number } | undefined {
  const match = /^bytes=(\d+)-(\d*)$/.exec(header ?? "");
  if (match === null) return undefined;
  return { start: Number(match[1]), end: match[2] === "" ? total : Math.min(total, Number(match[2]) + 1) };
}

function digestOf(bytes: Buffer): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}
