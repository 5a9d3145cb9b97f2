/** The registry of made-up images for `dfdaemon doctor` (protocol/self-test.ts): read-only, and bounded in memory and time. */
import { createHash } from "node:crypto";
import type { FastifyInstance } from "fastify";
import type { RateFlow } from "../../base/rate-budget.ts";
import { distributionErrorBody, isDistributionTarget, parseDistributionTarget } from "../../protocol/distribution.ts";
import { RateGate } from "../../peer/rate-gate.ts";
import { parseSelfTestRepository, SELF_TEST_LAYER_BYTES, SELF_TEST_PATH } from "../../protocol/self-test.ts";

/**
 * Open to everybody, as health is: there is nothing in it.
 * @param nowMs monotonic; a test's clock
 */
export function addSelfTestRegistry(app: FastifyInstance, nowMs?: () => number): void {
  const images = new SelfTestImages(nowMs);
  app.addHook("onClose", () => images.close());
  app.get(`${SELF_TEST_PATH}/*`, { schema: { hide: true } }, async (request, reply) => {
    const target = request.url.slice(SELF_TEST_PATH.length);
    const answer = isDistributionTarget(target) ? await selfTestAnswer(target, images) : undefined;
    if (answer === "busy") {
      return await reply.status(503).header("retry-after", RETRY_SECONDS).type("application/json").send(distributionErrorBody("UNAVAILABLE", "too many hosts test themselves at once"));
    }
    if (answer === undefined) {
      return await reply.status(404).type("application/json").send(distributionErrorBody("NAME_UNKNOWN", "this registry is for dfdaemon doctor"));
    }
    const { bytes, contentType, digest } = answer;
    if (digest !== undefined) reply.header("docker-content-digest", digest).header("etag", `"${digest}"`);
    return await reply.type(contentType).send(bytes);
  });
}

/**
 * Makes images up. A layer costs the main thread as much as twenty joins, and whoever reaches the port may ask for one: so
 * many a second, and no more.
 */
class SelfTestImages {
  readonly #gate: RateGate;
  readonly #flow: RateFlow;
  readonly #closing = new AbortController();
  /** By repository, the latest last: a test asks for each several times. */
  readonly #known = new Map<string, Image>();

  constructor(nowMs: (() => number) | undefined) {
    this.#gate = new RateGate(LAYERS_PER_SECOND, nowMs);
    this.#flow = this.#gate.flow("interactive");
  }

  /** @throws AppError ABORTED at the end of the supernode */
  async of(repository: string): Promise<Image | "busy" | undefined> {
    const named = parseSelfTestRepository(repository);
    if (named === undefined) return undefined;
    const known = this.#known.get(repository);
    if (known !== undefined) return known;
    const layer = await this.layerOf(repository);
    if (layer === "busy") return layer;
    const image = selfTestImage(layer, named.architecture);
    this.#known.set(repository, image);
    if (this.#known.size > KNOWN_COUNT_MAX) this.#known.delete(this.#known.keys().next().value as string);
    return image;
  }

  /** @throws AppError ABORTED at the end of the supernode */
  async layerOf(repository: string): Promise<Described | "busy"> {
    if (this.#gate.waitingCount >= WAITING_COUNT_MAX) return "busy";
    await this.#gate.passed(this.#flow, 1, this.#closing.signal);
    return described(tarOf("self-test", noise(repository)), "application/vnd.oci.image.layer.v1.tar");
  }

  close(): void {
    this.#closing.abort();
    this.#gate.close();
  }
}

interface Answer {
  readonly bytes: Buffer;
  readonly contentType: string;
  readonly digest?: string;
}

interface Described extends Answer {
  readonly digest: string;
}

interface Image {
  readonly manifest: Described;
  readonly config: Described;
  readonly layerDigest: string;
}

async function selfTestAnswer(target: string, images: SelfTestImages): Promise<Answer | "busy" | undefined> {
  const parsed = parseDistributionTarget(target);
  if ("status" in parsed) return undefined;
  const { resource } = parsed;
  if (resource.type === "root") return { bytes: Buffer.from("{}"), contentType: "application/json" };
  if (resource.type !== "manifest" && resource.type !== "blob") return undefined;
  const image = await images.of(resource.repository);
  if (image === undefined || image === "busy") return image;
  const { manifest, config, layerDigest } = image;
  if (resource.type === "manifest") return resource.reference.type === "tag" || resource.reference.digest === manifest.digest ? manifest : undefined;
  if (resource.digest === layerDigest) return await images.layerOf(resource.repository);
  return resource.digest === config.digest ? config : undefined;
}

/** The same for the same repository, on every supernode. */
function selfTestImage(layer: Described, architecture: string): Image {
  const rootfs = { type: "layers", diff_ids: [layer.digest] };
  const config = described(json({ architecture, os: "linux", config: {}, rootfs }), "application/vnd.oci.image.config.v1+json");
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = { schemaVersion: 2, mediaType, config: descriptorOf(config), layers: [descriptorOf(layer)] };
  return { manifest: described(json(manifest), mediaType), config, layerDigest: layer.digest };
}

function described(bytes: Buffer, contentType: string): Described {
  return { bytes, contentType, digest: `sha256:${createHash("sha256").update(bytes).digest("hex")}` };
}

function descriptorOf({ bytes, contentType, digest }: Answer): object {
  return { mediaType: contentType, digest, size: bytes.length };
}

function json(value: object): Buffer {
  return Buffer.from(JSON.stringify(value));
}

/** Bytes that nothing on the way can shorten. */
function noise(seed: string): Buffer {
  return createHash("shake256", { outputLength: SELF_TEST_LAYER_BYTES }).update(seed).digest();
}

/** One file in a tar archive (POSIX.1-2017, pax, "ustar Interchange Format"). */
function tarOf(name: string, content: Buffer): Buffer {
  const header = Buffer.alloc(TAR_BLOCK_BYTES);
  header.write(name, 0);
  header.write("0000644\0" + "0000000\0" + "0000000\0", 100);
  header.write(`${content.length.toString(8).padStart(11, "0")}\0`, 124);
  header.write(`${"0".repeat(11)}\0`, 136);
  header.write("        0", 148);
  header.write("ustar\0" + "00", 257);
  const sum = header.reduce((total, byte) => total + byte, 0);
  header.write(`${sum.toString(8).padStart(6, "0")}\0 `, 148);
  // The content is whole blocks long; two empty ones end the archive.
  return Buffer.concat([header, content, Buffer.alloc(2 * TAR_BLOCK_BYTES)]);
}

const TAR_BLOCK_BYTES = 512;
/** About a tenth of the main thread. */
const LAYERS_PER_SECOND = 20;
/** Ten seconds' worth. */
const WAITING_COUNT_MAX = 200;
const RETRY_SECONDS = 5;
/** Of a KiB each: layers are not kept. */
const KNOWN_COUNT_MAX = 1_000;
