import type { Digest } from "../../protocol/ids.ts";
import type { Manifest } from "./manifest-content.ts";
import type { Place } from "./access.ts";

/**
 * Manifests by place and digest, the least recently used dropped beyond a number of bytes. Knows nothing of who may read
 * them: ask `MirrorAccess` first. What one registry gave is not given out on the word of another.
 */
export class ManifestCache {
  readonly #bytesMax: number;
  /** Oldest use first. */
  readonly #manifests = new Map<string, Manifest>();
  #sizeBytes = 0;

  /** @param bytesMax 0 keeps nothing */
  constructor(bytesMax: number) {
    this.#bytesMax = bytesMax;
  }

  /** Bytes of the manifests kept. */
  get sizeBytes(): number {
    return this.#sizeBytes;
  }

  get(place: Place, digest: Digest): Manifest | undefined {
    const key = keyOf(place, digest);
    const manifest = this.#manifests.get(key);
    if (manifest === undefined) return undefined;
    this.#manifests.delete(key);
    this.#manifests.set(key, manifest);
    return manifest;
  }

  /** The bytes are copied: small ones are often a corner of a pool of 64 KiB, which each would keep from being collected. */
  add(place: Place, manifest: Manifest): void {
    const key = keyOf(place, manifest.digest);
    this.#drop(key);
    if (manifest.bytes.length > this.#bytesMax) return;
    const bytes = Buffer.allocUnsafeSlow(manifest.bytes.length);
    bytes.set(manifest.bytes);
    this.#manifests.set(key, { ...manifest, bytes });
    this.#sizeBytes += bytes.length;
    while (this.#sizeBytes > this.#bytesMax) {
      const [oldest] = this.#manifests.keys();
      if (oldest === undefined) return;
      this.#drop(oldest);
    }
  }

  #drop(key: string): void {
    const manifest = this.#manifests.get(key);
    if (manifest === undefined) return;
    this.#manifests.delete(key);
    this.#sizeBytes -= manifest.bytes.length;
  }
}

function keyOf({ registry, repository }: Place, digest: Digest): string {
  return `${registry} ${repository} ${digest}`;
}
