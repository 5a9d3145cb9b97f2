import { createHash, randomFillSync } from "node:crypto";
import { chmodSync, copyFileSync, mkdirSync, symlinkSync, writeFileSync } from "node:fs";

import type { Lab } from "./processes.ts";

const INDEX_TYPE = "application/vnd.oci.image.index.v1+json";
const MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json";
const ARCHITECTURE = process.arch === "arm64" ? "arm64" : "amd64";
const OTHER_ARCHITECTURE = ARCHITECTURE === "arm64" ? "amd64" : "arm64";

/** What {@link pushImage} put into the registry. */
export interface PushedImage {
  /** `team/app`. */
  readonly repository: string;
  /** The index's tag. */
  readonly tag: string;
  readonly indexDigest: string;
  /** The manifest of this machine's platform. */
  readonly manifestDigest: string;
  /** Config and layers of this machine's platform: what a pull reads, each once. */
  readonly blobs: readonly { readonly digest: string; readonly size: number }[];
  /** Config and layers of the other platform: what a pull leaves alone. */
  readonly otherBlobs: readonly { readonly digest: string; readonly size: number }[];
  /** What the image's command prints: the digest of each file of random bytes, as the running container sees it. */
  readonly output: string;
}

interface Descriptor {
  readonly digest: string;
  readonly size: number;
}

interface Manifest {
  readonly config: Descriptor;
  readonly layers: readonly Descriptor[];
}

/**
 * Builds an image of a busybox layer and one layer of incompressible bytes for each size, puts it with a tiny sibling
 * of another architecture under one index, and pushes both straight into the registry at `backUrl`.
 */
export async function pushImage(
  lab: Lab,
  backUrl: string,
  options: {
    readonly repository: string;
    readonly tag: string;
    readonly layerBytes: readonly number[];
    /** What a container of it runs. */
    readonly shellCommand?: string;
  },
): Promise<PushedImage> {
  const { repository, tag, layerBytes, shellCommand = "sha256sum /data/*" } = options;
  const layout = `oci-${repository.replaceAll("/", "-")}-${tag}`;
  const work = lab.makeDir("image", repository, tag);
  await lab.must(["umoci", "init", "--layout", layout]);

  const bin = `${work}/bin`;
  mkdirSync(bin, { recursive: true });
  copyFileSync("/bin/busybox", `${bin}/busybox`);
  chmodSync(`${bin}/busybox`, 0o755);
  for (const applet of ["sh", "sha256sum", "cat", "sleep"]) symlinkSync("busybox", `${bin}/${applet}`);

  await lab.must(["umoci", "new", "--image", `${layout}:${ARCHITECTURE}`]);
  await lab.must(["umoci", "insert", "--image", `${layout}:${ARCHITECTURE}`, bin, "/bin"]);
  const lines: string[] = [];
  for (const [i, bytes] of layerBytes.entries()) {
    const name = `part-${String(i).padStart(2, "0")}`;
    lines.push(`${randomFile(`${work}/${name}`, bytes)}  /data/${name}`);
    await lab.must(["umoci", "insert", "--image", `${layout}:${ARCHITECTURE}`, `${work}/${name}`, `/data/${name}`]);
  }
  await lab.must([
    "umoci", "config", "--image", `${layout}:${ARCHITECTURE}`, "--os", "linux", "--architecture", ARCHITECTURE,
    "--config.env", "PATH=/bin", "--config.cmd", "/bin/sh", "--config.cmd", "-c",
    "--config.cmd", shellCommand,
  ]);

  await lab.must(["umoci", "new", "--image", `${layout}:${OTHER_ARCHITECTURE}`]);
  for (const name of ["small-0", "small-1"]) {
    randomFile(`${work}/${name}`, 2_000);
    await lab.must(["umoci", "insert", "--image", `${layout}:${OTHER_ARCHITECTURE}`, `${work}/${name}`, `/${name}`]);
  }
  await lab.must([
    "umoci", "config", "--image", `${layout}:${OTHER_ARCHITECTURE}`,
    "--os", "linux", "--architecture", OTHER_ARCHITECTURE,
  ]);

  const host = new URL(backUrl).host;
  for (const architecture of [ARCHITECTURE, OTHER_ARCHITECTURE]) {
    await lab.must([
      "skopeo", "copy", "--insecure-policy", "-q", "--dest-tls-verify=false", `oci:${layout}:${architecture}`,
      `docker://${host}/${repository}:${tag}-${architecture}`,
    ]);
  }

  const base = `${backUrl}/v2/${repository}/manifests`;
  const own = await readManifest(`${base}/${tag}-${ARCHITECTURE}`);
  const other = await readManifest(`${base}/${tag}-${OTHER_ARCHITECTURE}`);
  const index = JSON.stringify({
    schemaVersion: 2,
    mediaType: INDEX_TYPE,
    manifests: [
      { ...other.descriptor, platform: { os: "linux", architecture: OTHER_ARCHITECTURE } },
      { ...own.descriptor, platform: { os: "linux", architecture: ARCHITECTURE } },
    ],
  });
  const put = await fetch(`${base}/${tag}`, { method: "PUT", headers: { "Content-Type": INDEX_TYPE }, body: index });
  if (put.status !== 201) throw new Error(`PUT of the index: ${put.status} ${await put.text()}`);

  return {
    repository,
    tag,
    indexDigest: digestOf(Buffer.from(index)),
    manifestDigest: own.descriptor.digest,
    blobs: [own.manifest.config, ...own.manifest.layers],
    otherBlobs: [other.manifest.config, ...other.manifest.layers],
    output: `${lines.join("\n")}\n`,
  };
}

async function readManifest(
  url: string,
): Promise<{ descriptor: Descriptor & { mediaType: string }; manifest: Manifest }> {
  const answer = await fetch(url, { headers: { Accept: MANIFEST_TYPE } });
  if (answer.status !== 200) throw new Error(`GET ${url}: ${answer.status} ${await answer.text()}`);
  const body = Buffer.from(await answer.arrayBuffer());
  return {
    descriptor: { mediaType: MANIFEST_TYPE, digest: digestOf(body), size: body.length },
    manifest: JSON.parse(body.toString()) as Manifest,
  };
}

/** Writes `bytes` random bytes and gives their SHA-256 in hex. */
function randomFile(path: string, bytes: number): string {
  const content = randomFillSync(Buffer.allocUnsafe(bytes));
  writeFileSync(path, content);
  return createHash("sha256").update(content).digest("hex");
}

function digestOf(body: Buffer): string {
  return `sha256:${createHash("sha256").update(body).digest("hex")}`;
}
