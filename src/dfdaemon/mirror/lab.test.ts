/** What the mirror's tests stand on: a registry and a mirror on real sockets, with a swarm that is made up between. */
import { createHash } from "node:crypto";
import { createServer, request as httpRequest, type IncomingHttpHeaders, type IncomingMessage, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";
import type { TestContext } from "node:test";
import { pino } from "pino";
import { AppError } from "../../base/errors.ts";
import type { RegistryCredentials } from "../../origin/origin.ts";
import type { Content, ContentInfo, ContentOpener, ContentRequest } from "../../peer/content.ts";
import type { Source } from "../../protocol/control-messages.ts";
import type { Digest, TaskId } from "../../protocol/ids.ts";
import type { RegistryConfig } from "../config.ts";
import { HttpUpstreamAsker } from "./passthrough.ts";
import { MirrorServer } from "./server.ts";
import { Mirror, type MirrorOptions } from "./mirror.ts";
import { Registries } from "./registries.ts";

export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";
export const OCI_INDEX = "application/vnd.oci.image.index.v1+json";

export function sha256(bytes: Uint8Array | string): Digest {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}` as Digest;
}

export function patterned(lengthBytes: number): Buffer {
  const bytes = Buffer.alloc(lengthBytes);
  for (let at = 0; at < lengthBytes; at++) bytes[at] = (at * 31 + (at >> 8)) & 0xff;
  return bytes;
}

interface StoredFile {
  readonly bytes: Buffer;
  readonly contentType: string;
}

/** A registry: files by path, each readable to who `mayRead` says. */
export class LabRegistry {
  readonly files = new Map<string, StoredFile>();
  readonly requests: { readonly method: string; readonly url: string; readonly headers: IncomingHttpHeaders }[] = [];
  /** Undefined: everybody. */
  mayRead: ((authorization: string | undefined, path: string) => boolean) | undefined;
  /** Answers instead, when it returns true. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
  down = false;
  /** Of its own token service, which trusts nobody whom `mayRead` does not. */
  challenge = "";

  putBlob(repository: string, bytes: Buffer): Digest {
    const digest = sha256(bytes);
    this.files.set(`/v2/${repository}/blobs/${digest}`, { bytes, contentType: "application/octet-stream" });
    return digest;
  }

  putManifest(repository: string, tag: string, content: unknown, contentType: string = OCI_MANIFEST): { digest: Digest; bytes: Buffer } {
    const bytes = Buffer.from(typeof content === "string" ? content : JSON.stringify(content, undefined, 3));
    const digest = sha256(bytes);
    for (const reference of [tag, digest]) this.files.set(`/v2/${repository}/manifests/${reference}`, { bytes, contentType });
    return { digest, bytes };
  }

  /** @throws AppError as the supernode would, having asked in the caller's name */
  read(source: Source): StoredFile {
    if (this.down) throw new AppError("ORIGIN_UNREACHABLE", "the registry is down");
    const path = new URL(source.url).pathname;
    if (this.mayRead?.(source.headers["authorization"] || undefined, path) === false) {
      throw new AppError("ORIGIN_UNAUTHORIZED", "who are you?", { details: { status: 401, wwwAuthenticate: this.challenge } });
    }
    const file = this.files.get(path);
    if (file === undefined) throw new AppError("ORIGIN_NOT_FOUND", `no ${path}`, { details: { status: 404 } });
    return file;
  }

  answer(request: IncomingMessage, response: ServerResponse): void {
    const { method = "", url = "", headers } = request;
    this.requests.push({ method, url, headers });
    if (this.down) return void request.socket.destroy();
    if (this.intercept?.(request, response) === true) return;
    const path = new URL(url, "http://x").pathname;
    if (this.mayRead?.(headers.authorization, path) === false) {
      response.writeHead(401, { "www-authenticate": this.challenge }).end();
      return;
    }
    const file = this.files.get(path);
    if (path === "/v2/") response.writeHead(200).end("{}");
    else if (file === undefined) response.writeHead(404).end();
    else {
      response.writeHead(200, { "content-type": file.contentType, "content-length": file.bytes.length, "accept-ranges": "bytes" });
      response.end(method === "HEAD" ? undefined : file.bytes);
    }
  }
}

/** How one content of the swarm behaves. */
export interface Behaviour {
  readonly chunkBytes?: number;
  /** Awaited before the chunk that begins there. */
  readonly before?: (atByte: number) => Promise<void> | void;
  readonly contentType?: string | undefined;
  readonly lengthUnknown?: boolean;
  readonly headers?: Readonly<Record<string, string>>;
}

/** Content as the swarm would give it: checked by the registry, unless this host has it (`held`). */
export class LabOpener implements ContentOpener {
  readonly #registry: LabRegistry;
  readonly opened: Source[] = [];
  readonly held = new Map<string, Buffer>();
  behaviour: Behaviour = {};
  /** Bytes handed out by all reads. */
  readBytes = 0;
  openCount = 0;

  constructor(registry: LabRegistry) {
    this.#registry = registry;
  }

  async open({ source }: ContentRequest, signal: AbortSignal): Promise<Content> {
    this.opened.push(source);
    await this.behaviour.before?.(-1);
    signal.throwIfAborted();
    const heldBytes = this.held.get(source.digest ?? "");
    const file = heldBytes === undefined ? this.#registry.read(source) : { bytes: heldBytes, contentType: OCI_MANIFEST };
    this.openCount++;
    const { bytes } = file;
    let arrivedBytes = 0;
    const read = (range: { readonly startByte: number; readonly endByte: number | undefined }, stop: AbortSignal): AsyncIterable<Uint8Array> =>
      this.#read(bytes, range, stop, (count) => (arrivedBytes += count));
    return {
      info: this.#info(file, source),
      read,
      sources: () => ({
        cacheBytes: heldBytes?.length ?? 0, seedBytes: 0, peerBytes: heldBytes === undefined ? arrivedBytes : 0, originBytes: 0,
      }),
      explanation: () => undefined,
      close: () => this.openCount--,
    };
  }

  async stat({ source }: ContentRequest): Promise<ContentInfo> {
    const heldBytes = this.held.get(source.digest ?? "");
    await Promise.resolve();
    return this.#info(heldBytes === undefined ? this.#registry.read(source) : { bytes: heldBytes, contentType: OCI_MANIFEST }, source);
  }

  async *#read(
    bytes: Buffer,
    range: { readonly startByte: number; readonly endByte: number | undefined },
    signal: AbortSignal,
    onBytes: (count: number) => void,
  ): AsyncGenerator<Uint8Array> {
    const { chunkBytes = 64 * 1024, before } = this.behaviour;
    const end = Math.min(range.endByte ?? bytes.length, bytes.length);
    for (let at = range.startByte; at < end; at += chunkBytes) {
      await before?.(at);
      signal.throwIfAborted();
      const chunk = bytes.subarray(at, Math.min(at + chunkBytes, end));
      this.readBytes += chunk.length;
      onBytes(chunk.length);
      yield Buffer.from(chunk);
    }
  }

  #info({ bytes, contentType }: StoredFile, source: Source): ContentInfo {
    const { behaviour } = this;
    return {
      taskId: sha256(source.digest ?? source.url).slice("sha256:".length) as TaskId,
      lengthBytes: behaviour.lengthUnknown === true ? undefined : bytes.length,
      contentType: "contentType" in behaviour ? behaviour.contentType : contentType,
      digest: source.digest,
      headers: behaviour.headers ?? {},
    };
  }
}

export interface Answer {
  readonly status: number;
  readonly headers: IncomingHttpHeaders;
  readonly body: Buffer;
}

export interface Lab {
  readonly registry: LabRegistry;
  readonly opener: LabOpener;
  readonly mirror: Mirror;
  readonly port: number;
  /** Lines of the log. */
  readonly lines: Record<string, unknown>[];
  /** Path without `ns`: that of the lab's registry is added. */
  ask(path: string, options?: { readonly method?: string; readonly headers?: Record<string, string> }): Promise<Answer>;
}

/** @param setup `sole: false` configures no registry that could stand for those who name none */
export async function openLab(
  t: TestContext,
  options: Partial<MirrorOptions> = {},
  setup: { readonly sole?: boolean; readonly registry?: Partial<RegistryConfig>; readonly credentials?: RegistryCredentials } = {},
): Promise<Lab> {
  const registry = new LabRegistry();
  const upstream = createServer((request, response) => registry.answer(request, response));
  await new Promise<void>((resolve) => upstream.listen(0, "127.0.0.1", resolve));
  const url = `http://127.0.0.1:${(upstream.address() as AddressInfo).port}`;
  registry.challenge = `Bearer realm="${url}/token",service="reg.test",scope="repository:team/app:pull"`;
  const opener = new LabOpener(registry);
  const servers = [{ origin: url, caCertificates: [], credentials: setup.credentials }];
  const asker = new HttpUpstreamAsker({ userAgent: "lab", servers });
  const lines: Record<string, unknown>[] = [];
  const log = pino({ level: "info" }, { write: (line: string) => void lines.push(JSON.parse(line) as Record<string, unknown>) });
  const others = setup.sole === false ? [{ host: "other.test", url: "http://127.0.0.1:9" }] : [];
  const registries = new Registries([{ host: "reg.test", url, ...setup.registry }, ...others]);
  const mirror = new Mirror({ opener, registries, asker, log, backToSource: true, options });
  const server = await MirrorServer.listen(
    { host: "127.0.0.1", port: 0 },
    { mirror, version: "1.2.3", isReady: () => true, metricsText: () => mirror.metrics.registry.metrics() },
  );
  const { port } = server.address;
  t.after(async () => {
    await server.close(0);
    await asker.close();
    upstream.closeAllConnections();
    await new Promise((resolve) => upstream.close(resolve));
  });
  const ask: Lab["ask"] = (path, { method = "GET", headers = {} } = {}) => {
    const withNamespace = `${path}${path.includes("?") ? "&" : "?"}ns=reg.test`;
    return fetchAnswer(port, withNamespace, method, headers);
  };
  return { registry, opener, mirror, port, lines, ask };
}

/** One request over a connection of its own. Rejects when the body is cut. */
export function fetchAnswer(port: number, path: string, method = "GET", headers: Record<string, string> = {}): Promise<Answer> {
  return new Promise((resolve, reject) => {
    const request = httpRequest({ host: "127.0.0.1", port, path, method, headers, agent: false }, (response) => {
      const chunks: Buffer[] = [];
      response.on("data", (chunk: Buffer) => chunks.push(chunk));
      response.on("error", reject);
      response.on("end", () => resolve({ status: response.statusCode ?? 0, headers: response.headers, body: Buffer.concat(chunks) }));
    });
    request.on("error", reject);
    request.end();
  });
}

/** Polls: for what happens on the other side of a socket. */
export async function eventually(condition: () => boolean, what: string): Promise<void> {
  const endMs = performance.now() + 30_000;
  while (!condition()) {
    if (performance.now() > endMs) throw new Error(`never: ${what}`);
    await new Promise((resolve) => setTimeout(resolve, 5));
  }
}

/** The code in an answer's error body. */
export function errorCode({ body }: Answer): string | undefined {
  return (JSON.parse(body.toString()) as { errors: { code: string }[] }).errors[0]?.code;
}
