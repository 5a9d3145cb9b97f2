/** The registry of made-up images for `dfdaemon doctor` (protocol/self-test.ts): read-only, bounded, nothing kept. */
import { createHash } from "node:crypto";
import type { FastifyInstance } from "fastify";
import { distributionErrorBody, isDistributionTarget, parseDistributionTarget } from "../../protocol/distribution.ts";
import { parseSelfTestRepository, SELF_TEST_LAYER_BYTES, SELF_TEST_PATH } from "../../protocol/self-test.ts";

/** Open to everybody, as health is: there is nothing in it. */
export function addSelfTestRegistry(app: FastifyInstance): void {
  app.get(`${SELF_TEST_PATH}/*`, { schema: { hide: true } }, async (request, reply) => {
    const target = request.url.slice(SELF_TEST_PATH.length);
    const answer = isDistributionTarget(target) ? selfTestAnswer(target) : undefined;
    if (answer === undefined) {
      return await reply.status(404).type("application/json").send(distributionErrorBody("NAME_UNKNOWN", "this registry is for dfdaemon doctor"));
    }
    const { bytes, contentType, digest } = answer;
    if (digest !== undefined) reply.header("docker-content-digest", digest).header("etag", `"${digest}"`);
    return await reply.type(contentType).send(bytes);
  });
}

interface Answer {
  readonly bytes: Buffer;
  readonly contentType: string;
  readonly digest?: string;
}

function selfTestAnswer(target: string): Answer | undefined {
  const parsed = parseDistributionTarget(target);
  if ("status" in parsed) return undefined;
  const { resource } = parsed;
  if (resource.type === "root") return { bytes: Buffer.from("{}"), contentType: "application/json" };
  if (resource.type !== "manifest" && resource.type !== "blob") return undefined;
  const image = selfTestImage(resource.repository);
  if (image === undefined) return undefined;
  const { manifest, blobs } = image;
  if (resource.type === "blob") return blobs.find(({ digest }) => digest === resource.digest);
  const isIt = resource.reference.type === "tag" || resource.reference.digest === manifest.digest;
  return isIt ? manifest : undefined;
}

/** The same for the same repository, on every supernode. */
function selfTestImage(repository: string): { readonly manifest: Answer; readonly blobs: readonly Answer[] } | undefined {
  const named = parseSelfTestRepository(repository);
  if (named === undefined) return undefined;
  const layer = described(tarOf("self-test", noise(repository)), "application/vnd.oci.image.layer.v1.tar");
  const { architecture } = named;
  const rootfs = { type: "layers", diff_ids: [layer.digest] };
  const config = described(json({ architecture, os: "linux", config: {}, rootfs }), "application/vnd.oci.image.config.v1+json");
  const mediaType = "application/vnd.oci.image.manifest.v1+json";
  const manifest = { schemaVersion: 2, mediaType, config: descriptorOf(config), layers: [descriptorOf(layer)] };
  return { manifest: described(json(manifest), mediaType), blobs: [config, layer] };
}

function described(bytes: Buffer, contentType: string): Answer & { readonly digest: string } {
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
