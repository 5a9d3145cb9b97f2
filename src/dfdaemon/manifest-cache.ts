import type { Digest } from "../protocol/ids.ts";
import type { Manifest } from "./manifest-content.ts";

/**
 * Manifests by digest, the least recently used dropped beyond a number of bytes. Knows nothing of who may read them:
 * ask `MirrorAccess` first.
 */
export class ManifestCache {
  readonly #bytesMax: number;
  /** Oldest use first. */
  readonly #manifests = new Map<Digest, Manifest>();
  #sizeBytes = 0;

  /** @param bytesMax 0 keeps nothing */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Bytes of the manifests kept. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get(digest: Digest): Manifest | undefined {
    const manifest = this.#manifests.get(digest);
    if (manifest === undefined) return undefined;
    this.#manifests.delete(digest);
    this.#manifests.set(digest, manifest);
    return manifest;
  }

  /** The bytes are kept as they are, not copied. */
  add(manifest: Manifest): void {
    this.#drop(manifest.digest);
    if (manifest.bytes.length > this.#bytesMax) return;
    this.#manifests.set(manifest.digest, manifest);
    this.#sizeBytes += manifest.bytes.length;
    while (this.#sizeBytes > this.#bytesMax) {
      const [oldest] = this.#manifests.keys();
      if (oldest === undefined) return;
      this.#drop(oldest);
    }
  }

  #drop(digest: Digest): void {
    const manifest = this.#manifests.get(digest);
    if (manifest === undefined) return;
    this.#manifests.delete(digest);
    this.#sizeBytes -= manifest.bytes.length;
  }
}
