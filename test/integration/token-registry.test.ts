/** A registry with a token service, rights per user and repository, and a store that it may redirect to. No tests of its own. */
import { createHash } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

export const OCI_MANIFEST = "application/vnd.oci.image.manifest.v1+json";

export function sha256(bytes: Uint8Array): string {
  return `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
}

interface StoredFile {
  readonly bytes: Buffer;
  readonly contentType: string;
}

export interface Image {
  readonly repository: string;
  readonly manifest: Buffer;
  readonly digest: string;
  readonly layers: readonly { readonly digest: string; readonly bytes: Buffer }[];
}

/** One request, as it came. */
export interface Seen {
  readonly method: string;
  readonly path: string;
  readonly authorization: string | undefined;
  /** Of who answered: the registry itself, or the store beside it. */
  readonly at: "registry" | "store";
  status: number;
  sentBytes: number;
}

export class TokenRegistry {
  readonly seen: Seen[] = [];
  /** User → repositories. Who is not here gets no token. */
  readonly rights = new Map<string, Set<string>>();
  /** For everybody. */
  readonly open = new Set<string>();
  readonly passwords = new Map<string, string>();
  readonly #files = new Map<string, StoredFile>();
  readonly #server: Server;
  readonly #store: Server;
  /** Blobs are answered with a redirect to the store, signed for so many uses; undefined: by the registry itself. */
  signatureUses: number | undefined;
  /** Signature → uses left. */
  readonly #signatures = new Map<string, number>();
  /** Bodies of the store and the registry break off after so many bytes; undefined: they do not. */
  cutAfterBytes: number | undefined;
  /** Tokens are good for so long from their first use; undefined: for ever. */
  tokenLifeMs: number | undefined;
  /** Token → when it was first used, by performance.now(). */
  readonly #usedSince = new Map<string, number>();
  /** Of each body of the registry; undefined: at once. */
  bytesPerSecond: number | undefined;
  /** Answers instead, when it returns true. */
  intercept: ((request: IncomingMessage, response: ServerResponse) => boolean) | undefined;
  isDown = false;

  private constructor() {
    this.#server = createServer((request, response) => this.#answer(request, response));
    this.#store = createServer((request, response) => this.#answerStore(request, response));
  }

  static async start(): Promise<TokenRegistry> {
    const registry = new TokenRegistry();
    for (const server of [registry.#server, registry.#store]) {
      await new Promise<void>((resolve) => void server.listen(0, "127.0.0.1", resolve));
    }
    return registry;
  }

  get url(): string {
    return urlOf(this.#server);
  }

  get storeUrl(): string {
    return urlOf(this.#store);
  }

  close(): void {
    for (const server of [this.#server, this.#store]) {
      server.closeAllConnections();
      server.close();
    }
  }

  /** @param number any: the same user's tokens are many */
  bearer(user: string, number = 0): string {
    return `Bearer token-${user}-${number}`;
  }

  putImage(repository: string, tag: string, layerLengths: readonly number[]): Image {
    const contents = [Buffer.from(`{"architecture":"amd64","of":"${repository}"}`), ...layerLengths.map((length, index) => patterned(length, `${repository}${index}`))];
    const layers = contents.map((bytes) => ({ digest: sha256(bytes), bytes }));
    for (const { digest, bytes } of layers) this.#files.set(`/v2/${repository}/blobs/${digest}`, { bytes, contentType: "application/octet-stream" });
    const [config, ...rest] = layers.map(({ digest, bytes }) => ({ mediaType: "application/octet-stream", digest, size: bytes.length }));
    const manifest = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: OCI_MANIFEST, config, layers: rest }));
    const digest = sha256(manifest);
    for (const reference of [tag, digest]) this.#files.set(`/v2/${repository}/manifests/${reference}`, { bytes: manifest, contentType: OCI_MANIFEST });
    return { repository, manifest, digest, layers };
  }

  /** An address of the store that opens a blob for so many requests. */
  signedAddress(rest: string, uses: number): string {
    const signature = `planted-signature-${this.#signatures.size}`;
    this.#signatures.set(signature, uses);
    return `${this.storeUrl}/v2/${rest}?X-Amz-Signature=${signature}`;
  }

  /** GETs of a path below a repository that were answered with content, whoever answered. */
  reads(rest: string): number {
    return this.seen.filter(({ method, path, status }) => method === "GET" && path.endsWith(rest) && (status === 200 || status === 206)).length;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    if (this.isDown) return void request.socket.destroy();
    const url = new URL(request.url ?? "", this.url);
    const { authorization } = request.headers;
    const seen: Seen = { method: request.method ?? "", path: url.pathname, authorization, at: "registry", status: 0, sentBytes: 0 };
    this.seen.push(seen);
    response.on("close", () => (seen.status = response.statusCode));
    if (this.intercept?.(request, response) === true) return;
    if (url.pathname === "/token") return this.#giveToken(authorization, response);
    const repository = /^\/v2\/(.+)\/(?:manifests|blobs|tags|referrers)\//.exec(url.pathname)?.[1];
    const user = this.#isOver(authorization) ? undefined : /^Bearer token-(\w+)-\d+$/.exec(authorization ?? "")?.[1];
    const mayRead = repository === undefined ? user !== undefined : this.open.has(repository) || (user !== undefined && this.rights.get(user)?.has(repository) === true);
    if (!mayRead) {
      const scope = repository === undefined ? "" : `,scope="repository:${repository}:pull"`;
      const error = user === undefined ? "" : ',error="insufficient_scope"';
      const challenge = `Bearer realm="${this.url}/token",service="token-registry"${scope}${error}`;
      return void response.writeHead(401, { "www-authenticate": challenge }).end('{"errors":[{"code":"UNAUTHORIZED"}]}');
    }
    if (url.pathname === "/v2/") return void response.writeHead(200).end("{}");
    const file = this.#files.get(url.pathname);
    if (file === undefined) return void response.writeHead(404).end('{"errors":[{"code":"NAME_UNKNOWN"}]}');
    if (this.signatureUses !== undefined && url.pathname.includes("/blobs/")) {
      const location = this.signedAddress(url.pathname.slice("/v2/".length), this.signatureUses);
      return void response.writeHead(307, { location }).end();
    }
    this.#send(file, request, response, seen);
  }

  #answerStore(request: IncomingMessage, response: ServerResponse): void {
    const url = new URL(request.url ?? "", this.storeUrl);
    const { authorization } = request.headers;
    const seen: Seen = { method: request.method ?? "", path: url.pathname, authorization, at: "store", status: 0, sentBytes: 0 };
    this.seen.push(seen);
    response.on("close", () => (seen.status = response.statusCode));
    const signature = url.searchParams.get("X-Amz-Signature") ?? "";
    const left = this.#signatures.get(signature) ?? 0;
    const file = this.#files.get(url.pathname);
    // As S3: two ways to prove a right are one too many, and a signature is for GET.
    if (authorization !== undefined) return void response.writeHead(400).end();
    if (left <= 0 || request.method !== "GET" || file === undefined) return void response.writeHead(403).end();
    this.#signatures.set(signature, left - 1);
    this.#send(file, request, response, seen);
  }

  #send({ bytes, contentType }: StoredFile, request: IncomingMessage, response: ServerResponse, seen: Seen): void {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const startByte = Number(range?.[1] ?? 0);
    const endByte = range?.[2] ? Math.min(Number(range[2]) + 1, bytes.length) : bytes.length;
    const partial = range === null ? {} : { "content-range": `bytes ${startByte}-${endByte - 1}/${bytes.length}` };
    const digest = contentType === OCI_MANIFEST ? { "docker-content-digest": sha256(bytes) } : {};
    response.writeHead(range === null ? 200 : 206, {
      "content-type": contentType, "content-length": endByte - startByte, "accept-ranges": "bytes", ...partial, ...digest,
    });
    if (request.method === "HEAD") return void response.end();
    const body = bytes.subarray(startByte, endByte);
    if (this.bytesPerSecond !== undefined) return drip(body, this.bytesPerSecond, response, seen);
    if (this.cutAfterBytes === undefined || body.length <= this.cutAfterBytes) {
      seen.sentBytes += body.length;
      return void response.end(body);
    }
    seen.sentBytes += this.cutAfterBytes;
    response.write(body.subarray(0, this.cutAfterBytes), () => response.destroy());
  }

  #isOver(authorization: string | undefined): boolean {
    if (authorization === undefined || this.tokenLifeMs === undefined) return false;
    const sinceMs = this.#usedSince.get(authorization) ?? performance.now();
    this.#usedSince.set(authorization, sinceMs);
    return performance.now() - sinceMs > this.tokenLifeMs;
  }

  #giveToken(authorization: string | undefined, response: ServerResponse): void {
    const [user = "", password] = Buffer.from((authorization ?? "").replace(/^Basic /, ""), "base64").toString().split(":");
    const isRight = authorization === undefined || this.passwords.get(user) === password;
    if (!isRight) return void response.writeHead(401).end();
    const token = authorization === undefined ? "token-nobody-1" : `token-${user}-1`;
    response.writeHead(200, { "content-type": "application/json" }).end(JSON.stringify({ token, expires_in: 300 }));
  }
}

function drip(body: Buffer, bytesPerSecond: number, response: ServerResponse, seen: Seen): void {
  const startMs = performance.now();
  const timer = setInterval(() => {
    const dueBytes = Math.min(body.length, Math.floor(((performance.now() - startMs) / 1000) * bytesPerSecond));
    response.write(body.subarray(seen.sentBytes, dueBytes));
    seen.sentBytes = dueBytes;
    if (dueBytes === body.length) response.end();
  }, DRIP_MS);
  response.on("close", () => clearInterval(timer));
}

const DRIP_MS = 20;

function urlOf(server: Server): string {
  return `http://127.0.0.1:${(server.address() as AddressInfo).port}`;
}

function patterned(lengthBytes: number, salt: string): Buffer {
  const block = createHash("sha512").update(salt).digest();
  const bytes = Buffer.alloc(lengthBytes, block);
  for (let at = 0; at < lengthBytes; at += 4096) bytes.writeUInt32BE(at, Math.min(at, Math.max(0, lengthBytes - 4)));
  return bytes;
}
