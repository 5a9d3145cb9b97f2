/** A registry and a web server whose files are made up when asked for: an image per number, without end and without a disk. */
import { createHash, randomBytes } from "node:crypto";
import { createServer, type IncomingMessage, type Server, type ServerResponse } from "node:http";
import type { AddressInfo } from "node:net";

const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const LENGTH_BYTES_MIN = 96 * 1024;
const LENGTH_BYTES_MAX = 2 * 1024 * 1024;

export interface SoakImage {
  readonly tag: string;
  readonly digest: string;
  readonly lengthBytes: number;
}

export class SoakRegistry {
  sentBytes = 0;
  readonly #server: Server = createServer((request, response) => this.#answer(request, response));
  readonly #noise = randomBytes(LENGTH_BYTES_MAX);
  readonly #images = new Map<number, SoakImage>();
  readonly #numbers = new Map<string, number>();
  /** By digest, of manifests that were asked for by tag. */
  readonly #manifestNumbers = new Map<string, number>();

  async listen(): Promise<number> {
    await new Promise<void>((resolve) => this.#server.listen(0, "127.0.0.1", resolve));
    return (this.#server.address() as AddressInfo).port;
  }

  image(number: number): SoakImage {
    const known = this.#images.get(number);
    if (known !== undefined) return known;
    const content = this.#content(number);
    const digest = `sha256:${createHash("sha256").update(content).digest("hex")}`;
    const image = { tag: `v${number}`, digest, lengthBytes: content.length };
    this.#images.set(number, image);
    this.#numbers.set(digest, number);
    return image;
  }

  async close(): Promise<void> {
    this.#server.closeAllConnections();
    await new Promise((resolve) => this.#server.close(resolve));
  }

  /** The same for the same number: noise from a place of its own, behind the number. */
  #content(number: number): Buffer {
    // Knuth's multiplicative hash: small and large ones alternate, so that a full cache holds about as many at any time.
    const length = LENGTH_BYTES_MIN + ((number * 2_654_435_761) % (LENGTH_BYTES_MAX - LENGTH_BYTES_MIN));
    const content = Buffer.from(this.#noise.subarray(0, length));
    content.writeUInt32BE(number, 0);
    return content;
  }

  #answer(request: IncomingMessage, response: ServerResponse): void {
    const path = request.url ?? "";
    const [, kind, name = ""] = /^\/v2\/soak\/app\/(blobs|manifests)\/(.+)$/.exec(path) ?? [];
    const file = /^\/files\/(\d+)$/.exec(path)?.[1];
    if (path === "/v2/") return void response.writeHead(200, { "content-type": "application/json" }).end("{}");
    if (file !== undefined) return this.#send(request, response, this.#content(Number(file)), { etag: `"${file}"` });
    const tag = /^v(\d+)$/.exec(name)?.[1];
    const image = tag === undefined ? this.#manifestNumbers.get(name) : Number(tag);
    if (kind === "manifests" && image !== undefined) {
      const { bytes, digest } = this.#manifest(image);
      return this.#send(request, response, bytes, { "content-type": MANIFEST_TYPE, "docker-content-digest": digest, etag: `"${digest}"` });
    }
    const number = this.#numbers.get(name);
    if (kind === "blobs" && number !== undefined) {
      return this.#send(request, response, this.#content(number), { "docker-content-digest": name, etag: `"${name}"` });
    }
    response.writeHead(404, { "content-type": "application/json" }).end('{"errors":[{"code":"NAME_UNKNOWN","message":"?"}]}');
  }

  #manifest(number: number): { readonly bytes: Buffer; readonly digest: string } {
    const { digest: layerDigest, lengthBytes } = this.image(number);
    const layer = { mediaType: "application/vnd.oci.image.layer.v1.tar+gzip", digest: layerDigest, size: lengthBytes };
    const bytes = Buffer.from(JSON.stringify({ schemaVersion: 2, mediaType: MANIFEST_TYPE, config: layer, layers: [layer] }));
    const digest = `sha256:${createHash("sha256").update(bytes).digest("hex")}`;
    this.#manifestNumbers.set(digest, number);
    return { bytes, digest };
  }

  #send(request: IncomingMessage, response: ServerResponse, content: Buffer, headers: Record<string, string>): void {
    const range = /^bytes=(\d+)-(\d*)$/.exec(request.headers.range ?? "");
    const start = Number(range?.[1] ?? 0);
    const end = range?.[2] === undefined || range[2] === "" ? content.length : Math.min(content.length, Number(range[2]) + 1);
    const part = content.subarray(start, end);
    response.writeHead(range === null ? 200 : 206, {
      "accept-ranges": "bytes",
      "content-length": part.length,
      ...(range === null ? {} : { "content-range": `bytes ${start}-${end - 1}/${content.length}` }),
      ...headers,
    });
    if (request.method === "HEAD") return void response.end();
    this.sentBytes += part.length;
    response.on("error", () => undefined).end(part);
  }
}
